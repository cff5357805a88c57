from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from model_store.command import main
from model_store.errors import StoreBusyError
from model_store.store import ModelStore
from service.http import schemas
from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.service.houses import trainer as stand_in
from tests.service.processes import until
from tests.support.artifacts import World, publish_world

KEY = "correct-horse-battery-staple"
TRAINER = Path(__file__).parents[1] / "trainer.py"
ADMIN = (
    ("POST", "/admin/retrain"),
    ("GET", "/admin/jobs"),
    ("GET", "/admin/jobs/x"),
    ("GET", "/admin/jobs/x/log"),
    ("POST", "/admin/jobs/x/cancel"),
    ("GET", "/admin/digest"),
    ("GET", "/admin/experiment"),
    ("DELETE", "/admin/experiment"),
    ("GET", "/admin/models"),
    ("GET", "/admin/models/v0001"),
    ("POST", "/admin/models/v0001/activate"),
    ("POST", "/admin/rollback"),
)


trainer = stand_in("fit")


def test_retraining_swaps_the_new_version_in(tmp_path):
    publish_world(tmp_path)
    settings = Settings(store=tmp_path, version_interval=0.02)
    with Client(create_app(settings, train_command=trainer)) as client:
        client.post("/interactions", json={"user_id": "u1", "item_id": "fresh"})
        answer = client.post("/admin/retrain")
        assert answer.status_code == 202
        job_id = answer.json()["job_id"]
        deadline = time.monotonic() + 30
        while (job := client.get(f"/admin/jobs/{job_id}").json())["state"] in {"queued", "running"}:
            assert time.monotonic() < deadline
            assert 0 <= job["progress"] <= 1
            time.sleep(0.02)
        assert (job["state"], job["version"], job["progress"]) == ("succeeded", "v0002", 1.0)
        assert (job["trigger"], job["attempts"], job["phase"]) == ("asked", 1, "done")
        assert client.get(f"/admin/jobs/{job_id}/log").json() == {"job_id": job_id, "log": "attempt 1"}
        late = client.post(f"/admin/jobs/{job_id}/cancel")
        assert (late.status_code, late.json()["error"]["code"]) == (409, "job_ended")
        assert client.get("/recommend/u1").json()["model_version"] == "v0002"
        assert [item["job_id"] for item in client.get("/admin/jobs").json()["jobs"]] == [job_id]
        listed = client.get("/admin/models").json()
        assert schemas.ModelList.model_validate(listed).model_dump() == listed
        assert listed["problem"] is None
        assert [(v["version"], v["active"], v["serving"], v["previous"]) for v in listed["models"]] == [
            ("v0001", False, False, True),
            ("v0002", True, True, False),
        ]
        assert client.post("/admin/rollback").json() == {"version": "v0001"}
        assert client.get("/recommend/u1").json()["model_version"] == "v0001"
        assert client.post("/admin/models/v0002/activate").json() == {"version": "v0002"}
        assert client.get("/recommend/u1").json()["model_version"] == "v0002"
        detail = client.get("/admin/models/v0002").json()
        assert schemas.ModelDetail.model_validate(detail).model_dump() == detail
        for path, code in (("/admin/models/v9/activate", "unknown_version"), ("/admin/jobs/x", "unknown_job")):
            assert client.request("POST" if "activate" in path else "GET", path).json()["error"]["code"] == code


def test_jobs_wait_run_and_are_cancelled(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path), train_command=stand_in("sleeping"))) as client:
        first = client.post("/admin/retrain").json()["job_id"]
        until(lambda: client.get(f"/admin/jobs/{first}").json()["phase"] == "fit", 30)
        second = client.post("/admin/retrain").json()["job_id"]
        third = client.post("/admin/retrain")
        assert (third.status_code, third.json()["error"]["code"]) == (409, "job_running")
        assert second in third.json()["error"]["message"]
        for job_id in (second, first):
            assert client.post(f"/admin/jobs/{job_id}/cancel").json()["state"] == "cancelled"
        assert {job["state"] for job in client.get("/admin/jobs").json()["jobs"]} == {"cancelled"}


def test_with_a_key_admin_requests_need_it(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, admin_key=KEY))) as client:
        for method, path in ADMIN:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
                answer = client.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert KEY not in answer.text
        allowed = {"Authorization": f"Bearer {KEY}"}
        assert client.get("/admin/jobs", headers=allowed).status_code == 200
        unknown = client.get("/admin/jobs/x", headers=allowed)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_job")
        assert client.get("/recommend/u1").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1@evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "["}, 403),
    ],
)
def test_without_a_key_only_this_machine_may_call(tmp_path, headers, status):
    with Client(create_app(Settings(store=tmp_path)), ready=False) as client:
        answer = client.get("/admin/jobs", headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["error"]["code"] == "forbidden"


def test_without_a_served_version_nothing_can_be_retrained(tmp_path):
    with Client(create_app(Settings(store=tmp_path), train_command=trainer), ready=False) as client:
        client.registry.wait_ready(20)
        for method, path in (("POST", "/admin/retrain"), ("GET", "/recommend/u1"), ("GET", "/health/ready")):
            answer = client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
            assert "kdiffe train" in answer.json()["error"]["message"]


def arm(name: str, version: str, share: float) -> dict[str, object]:
    return {"name": name, "version": version, "share": share}


def lists_of(client: Client, users: int, query: str = "") -> list[tuple[str, str]]:
    told = [client.get(f"/recommend/u{n}{query}").json() for n in range(users)]
    return [(one["variant"], one["model_version"]) for one in told]


def counted(client: Client, **labels: str) -> float:
    """How many lists the metrics tell of."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("kdiffe_lists_total{")]
    wanted = [line for line in lines if all(f'{name}="{value}"' in line for name, value in labels.items())]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def test_an_experiment_s_variants_are_given_to_their_shares_of_the_users_told_and_counted(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    with Client(create_app(Settings(store=tmp_path, version_interval=0.02))) as client:
        main = {"name": "main", "version": "v0001", "share": 1.0, "served": True, "problem": None}
        assert client.get("/admin/experiment").json() == {"name": None, "variants": [main]}
        wanted = {"name": "x", "variants": [arm("b", "v0002", 0.4), arm("control", "v0001", 0.2)]}
        begun = client.request("PUT", "/admin/experiment", json=wanted).json()
        assert schemas.Experiment.model_validate(begun).model_dump() == begun
        assert [(v["name"], v["share"], v["served"]) for v in begun["variants"]] == [
            ("main", 0.4, True),
            ("b", 0.4, True),
            ("control", 0.2, True),
        ]
        assert client.get("/admin/experiment").json() == begun
        listed = client.get("/admin/models").json()["models"]
        assert [version["variants"] for version in listed] == [["control"], ["b"]]
        first = lists_of(client, 30)
        assert set(first) == {("main", "v0001"), ("b", "v0002"), ("control", "v0001")}
        assert lists_of(client, 30) == first  # from the cache now
        users = [f"u{n}" for n in range(30)]
        batch = client.post("/recommend", json={"user_ids": users}).json()["results"]
        assert [(one["variant"], one["model_version"]) for one in batch] == first
        session = client.post("/recommend", json={"session": ["i1"]}).json()["results"][0]
        assert (session["variant"], session["model_version"]) == ("main", "v0001")
        variants = [variant for variant, _ in first]
        for variant in ("main", "b", "control"):
            once = 1 if variant == "main" else 0  # the session
            assert counted(client, variant=variant) == 3 * variants.count(variant) + once
        assert re.search(r'kdiffe_variant_share\{variant="b",version="v0002"\} 0\.4', client.get("/metrics").text)
        # Written, explained and read by the same model.
        user = f"u{variants.index('b')}"
        item = client.get(f"/recommend/{user}").json()["items"][0]["item_id"]
        told = client.get(f"/explain/{user}/{item}").json()
        assert (told["variant"], told["model_version"]) == ("b", "v0002")
        history = client.get(f"/history/{user}").json()
        assert (history["variant"], history["model_version"]) == ("b", "v0002")
        assert client.get("/health/ready").json()["variants"] == {"b": "v0002", "control": "v0001"}
        client.post("/interactions", json={"user_id": user, "item_id": item})
        listed = client.get(f"/recommend/{user}?k=60").json()
        assert item not in {other["item_id"] for other in listed["items"]}
        ended = client.request("DELETE", "/admin/experiment").json()
        assert (ended["name"], [v["name"] for v in ended["variants"]]) == (None, ["main"])
        until(lambda: set(lists_of(client, 30)) == {("main", "v0001")}, 10)
        assert client.get(f"/history/{user}").json()["variant"] == "main"
        assert client.get("/health/ready").json()["variants"] == {}


def test_what_a_variant_alone_knows_can_be_listed_removed_and_withdrawn(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1, n_users=60, n_items=80), activate=False)
    with Client(create_app(Settings(store=tmp_path, version_interval=0.02))) as client:
        wanted = {"name": "x", "variants": [arm("b", "v0002", 1.0)]}
        assert client.request("PUT", "/admin/experiment", json=wanted).status_code == 200
        user, item = "u45", "i70"
        listed = client.post("/recommend", json={"user_ids": [user], "include": [item, "nothing"]}).json()
        assert listed["unknown_items"] == ["nothing"]
        seen = client.get(f"/history/{user}").json()["items"][0]["item_id"]
        removed = client.request("DELETE", f"/interactions?user_id={user}&item_id={seen}")
        assert (removed.status_code, removed.json()["accepted"]) == (200, 1)
        assert client.request("DELETE", f"/items/{item}").status_code == 200
        listed = client.get(f"/recommend/{user}?k=80").json()["items"]
        assert item not in {other["item_id"] for other in listed}
        assert client.request("DELETE", "/items/nothing").status_code == 404


def test_a_running_service_follows_an_experiment_that_the_command_line_begins_and_ends(tmp_path, capsys):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    with Client(create_app(Settings(store=tmp_path, version_interval=0.02))) as client:
        words = ("begin", "x", "--variant", "b=v0002:0.4")
        assert main(["experiment", *words, "--store", str(tmp_path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["variants"][1] == arm("b", "v0002", 0.4)

        def served() -> bool:
            return all(variant["served"] for variant in client.get("/admin/experiment").json()["variants"])

        until(served, 20)
        experiment = ModelStore(tmp_path).experiment()
        assert [variant for variant, _ in lists_of(client, 20)] == [experiment.variant_of(f"u{n}") for n in range(20)]
        assert main(["experiment", "end", "--store", str(tmp_path)]) == 0
        until(lambda: set(lists_of(client, 20)) == {("main", "v0001")}, 20)


def test_a_read_may_name_the_variant_that_answers(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    with Client(create_app(Settings(store=tmp_path, version_interval=0.02))) as client:
        wanted = {"name": "x", "variants": [arm("b", "v0002", 0.0)]}  # nobody by share
        assert client.request("PUT", "/admin/experiment", json=wanted).status_code == 200
        assert set(lists_of(client, 20)) == {("main", "v0001")}
        assert set(lists_of(client, 20, "?variant=b")) == {("b", "v0002")}
        assert set(lists_of(client, 20, "?variant=main")) == {("main", "v0001")}
        assert (counted(client, variant="main"), counted(client, variant="forced")) == (20, 40)
        item = client.get("/recommend/u1?variant=b").json()["items"][0]["item_id"]
        asked = {"user_ids": ["u1"], "k": 5}
        told = [
            client.get(f"/explain/u1/{item}?variant=b").json(),
            client.post(f"/explain/u1/{item}?variant=b", json={}).json(),
            client.get("/similar/i1?variant=b").json(),
            client.post("/recommend?variant=b", json=asked).json()["results"][0],
            client.post("/recommend?variant=b", json={"session": ["i1"]}).json()["results"][0],
        ]
        assert {(one["variant"], one["model_version"]) for one in told} == {("b", "v0002")}
        assert client.get("/similar/i1").json()["variant"] == "main"
        # What was served is explained by what served it, whoever the user gets now.
        mark = client.get("/recommend/u1?variant=b").json()["recommendation_id"]
        past = client.get(f"/explain/u1/{item}?recommendation_id={mark}").json()
        assert (past["variant"], past["model_version"]) == (None, "v0002")
        for path in ("/recommend/u1?variant=c", "/similar/i1?variant=", f"/explain/u1/{item}?variant=B"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
            assert "there are main, b" in answer.json()["error"]["message"]


def test_an_experiment_that_can_not_be_is_refused_and_what_was_before_goes_on(tmp_path):
    publish_world(tmp_path)
    for seed in (1, 2):
        publish_world(tmp_path, World(seed=seed), activate=False)
    path = tmp_path / "v0003" / "item_embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))  # told by its checksum, when it is loaded
    with Client(create_app(Settings(store=tmp_path, version_interval=0.02))) as client:

        def put(*variants: dict[str, object], name: str = "x") -> tuple[int, str, str]:
            answer = client.request("PUT", "/admin/experiment", json={"name": name, "variants": list(variants)})
            error = answer.json().get("error", {"code": "", "message": ""})
            return answer.status_code, error["code"], error["message"]

        assert put(arm("b", "v0002", 0.5))[0] == 200
        before = client.get("/admin/experiment").json()
        status, code, message = put(arm("b", "v0002", 0.5), arm("c", "v0003", 0.1))
        assert (status, code) == (409, "unusable_version")
        assert "checksum" in message
        assert message.endswith("v0001 is active again, beside the experiment 'x'.")
        until(lambda: client.get("/admin/experiment").json() == before, 20)
        for variants, code, words in (
            ([arm("b", "v0009", 0.5)], "unknown_version", "v0009"),
            ([arm("main", "v0002", 0.5)], "invalid_request", "'main'"),
            ([arm("b", "v0002", 1.5)], "invalid_request", "share"),
            ([arm("b", "v0002", 0.6), arm("c", "v0001", 0.6)], "invalid_request", "add up to 1.2"),
            ([], "invalid_request", "variants"),
        ):
            told = put(*variants)
            assert told[1] == code
            assert words in told[2]
        assert client.get("/admin/experiment").json() == before


def test_readiness_is_degraded_while_the_active_version_can_not_be_served_before_a_restart_and_after(tmp_path):
    publish_world(tmp_path)
    settings = Settings(store=tmp_path, index="exact", version_interval=60)

    def told(client: Client) -> tuple[int, str, str, str]:
        until(lambda: client.registry.problem is not None)
        answer = client.get("/health/ready")
        assert client.get("/recommend/u1").status_code == 200
        ready = answer.json()
        assert ready["degraded"] is None  # the log can be read, and writes are taken
        assert client.post("/interactions", json={"user_id": "u1", "item_id": "i1"}).status_code == 202
        return answer.status_code, ready["status"], ready["model_version"], ready["problem"]

    with Client(create_app(settings)) as client:
        assert client.get("/health/ready").json()["status"] == "ready"
        publish_world(tmp_path, World(seed=1))
        damaged = tmp_path / "v0002" / "item_embeddings.npy"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        client.registry._wake.set()  # looked at now, and not between the lines above
        before = told(client)
    with Client(create_app(settings)) as client:
        assert told(client) == before
        assert client.post("/admin/rollback").json() == {"version": "v0001"}
        until(lambda: client.registry.problem is None)
        assert client.get("/health/ready").json()["status"] == "ready"
    assert before[:3] == (200, "degraded", "v0001")
    assert before[3].startswith("v0002: ")


def test_a_store_that_another_process_is_changing_is_asked_again_later(tmp_path, monkeypatch):
    def busy(_store: ModelStore) -> None:
        raise StoreBusyError("another process has been changing the store for 10 s. Try again.")

    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path))) as client:
        monkeypatch.setattr(ModelStore, "end_experiment", busy)
        answer = client.request("DELETE", "/admin/experiment")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "1"
