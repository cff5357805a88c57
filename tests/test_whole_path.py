"""One path through everything, with real processes: synthesize, train, publish, serve, explain, interact, retrain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from model_store.store import ModelStore

SMALL = ("model.width=8", "optimiser.max_epochs=4", "optimiser.evaluate_every=2", "item_item.per_row=20")


def kdiffe(*arguments: str) -> dict[str, object]:
    """Run a command as a user would; its last line on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "model_store", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextmanager
def serving(store: Path, stop: int = signal.SIGINT) -> Iterator[httpx.Client]:
    """A real `kdiffe serve`, ended by a signal."""
    command = [sys.executable, "-m", "model_store", "serve", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if line.startswith("kdiffe: serving"))
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield client
    finally:
        process.send_signal(stop)
        process.wait(30)
        assert process.stderr is not None
        drain.join(10)
        process.stderr.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("path")
    data, store = folder / "data", folder / "models"
    kdiffe("synthesize", str(data), "--users", "120", "--items", "80")
    sets = [word for value in SMALL for word in ("--set", value)]
    trained = kdiffe("train", "--data", str(data), "--store", str(store), "--run-dir", str(folder / "run"), *sets)
    return data, store, trained


def test_what_is_served_is_what_was_evaluated(world):
    data, store, trained = world
    figures = kdiffe("evaluate", "--data", str(data), "--store", str(store), "--split", "valid")
    assert figures["recall@20"] == pytest.approx(trained["recall@20"])
    assert figures["ndcg@20"] == pytest.approx(trained["ndcg@20"])

    artifact = ModelStore(store).open()
    users, items = artifact.array("user_embeddings"), artifact.array("item_embeddings")
    table = np.zeros((len(items), len(items)))
    b = artifact.item_item()
    for row in range(b.n_rows):
        part = slice(b.indptr[row], b.indptr[row + 1])
        table[row, b.indices[part]] = b.data[part]
    graph = artifact.graph()
    with serving(store) as client:
        for row in range(0, 120, 7):
            seen = graph.neighbors[graph.indptr[row] : graph.indptr[row + 1]] - graph.n_users
            if len(seen) == 0:
                continue
            scores = items.astype(np.float64) @ users[row].astype(np.float64) + table[seen].sum(0)
            scores[seen] = -np.inf
            expected = np.argsort(-scores, kind="stable")[:20]
            answer = client.get(f"/recommend/{artifact.array('user_ids')[row]}").raise_for_status().json()
            assert [item["item_id"] for item in answer["items"]] == [
                str(artifact.array("item_ids")[v]) for v in expected
            ]
            assert [item["score"] for item in answer["items"]] == pytest.approx(scores[expected], rel=1e-5, abs=1e-6)


def test_an_acknowledged_interaction_survives_kill_and_a_retrain_takes_it_up_without_a_failed_request(world):
    _, store, _ = world
    first = ModelStore(store).active()
    user = str(ModelStore(store).open().array("user_ids")[3])
    with serving(store, signal.SIGKILL) as client:
        liked = client.get(f"/recommend/{user}").json()["items"][0]["item_id"]
        body = {"interactions": [{"user_id": user, "item_id": liked}, {"user_id": "new one", "item_id": "a/new item"}]}
        assert client.post("/interactions", json=body).raise_for_status().json()["accepted"] == 2
    with serving(store) as client:
        answer = client.get(f"/recommend/{user}").json()
        assert answer["sequence"] == 2
        assert liked not in [item["item_id"] for item in answer["items"]]

        answers: list[tuple[int, str]] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=client.base_url, timeout=30, trust_env=False) as other:
                while not done.is_set():
                    response = other.get(f"/recommend/{user}")
                    answers.append((response.status_code, response.json().get("model_version", "")))
                    time.sleep(0.01)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            job_id = client.post("/admin/retrain").raise_for_status().json()["job_id"]
            deadline = time.monotonic() + 90
            while (job := client.get(f"/admin/jobs/{job_id}").json())["state"] in {"queued", "running"}:
                assert time.monotonic() < deadline, job
                time.sleep(0.1)
            assert job["state"] == "succeeded", job
            time.sleep(0.2)
        finally:
            done.set()
            asking.join()
        second = job["version"]
        assert {status for status, _ in answers} == {200}
        assert [answers[0][1], answers[-1][1]] == [first, second]

        # The new version was trained with the log: the new user is one of the model's now, and what came is seen.
        folded = client.get("/recommend/new%20one").json()
        assert folded["model_version"] == second
        assert {item["strategy"] for item in folded["items"]} == {"model"}
        assert "a/new item" not in [item["item_id"] for item in folded["items"]]
        assert liked not in [item["item_id"] for item in client.get(f"/recommend/{user}").json()["items"]]
        explained = client.get(
            f"/explain/{user}/{client.get(f'/recommend/{user}').json()['items'][0]['item_id']}"
        ).json()
        assert explained["additivity_error"] < 1e-4
        assert liked in [part["item_id"] for part in explained["contributions"]]
    manifest = ModelStore(store).open().manifest
    assert (manifest.sequence, manifest.training["base"], manifest.training["refit"]) == (2, first, True)
