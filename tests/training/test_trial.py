from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact import Artifact
from model_store.store import ModelStore
from service.jobs.gate import worse
from tests.training.worlds import clips, ids, interactions, small
from training.data.dataset import DataSet
from training.data.log import Log
from training.evaluation import interaction_matrix
from training.export import data_set_of
from training.observer import Silence
from training.runs import Run, retrain, train_on
from training.trained import train_kdiffe, with_everything
from training.trial import LEAST, figures, held_back, measured

N_USERS, N_ITEMS, N_GROUPS = 60, 120, 4
SETTINGS = small(item_item={"weight": 3.0, "method": "ease"}, optimiser={"max_epochs": 2})


def groups() -> DataSet:
    """Users of four groups, each with 8 of the group's 30 items."""
    rng = np.random.default_rng(0)
    pairs = [
        (user, int(item) * N_GROUPS + user % N_GROUPS)
        for user in range(N_USERS)
        for item in rng.choice(N_ITEMS // N_GROUPS, 8, replace=False)
    ]
    return DataSet("groups", ids("u", N_USERS), ids("i", N_ITEMS), interactions(pairs))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    root = tmp_path_factory.mktemp("groups")
    store = ModelStore(root / "models")
    train_on(groups(), SETTINGS, Silence(), root / "run").publish(store, 1.0, activate=True)
    return store


def tried(base: Artifact, later: Log, folder: Path) -> Run:
    return retrain(base, SETTINGS, later, Silence(), folder, trial=True)


def published(store: ModelStore, run: Run) -> Artifact:
    return store.open(run.publish(store, 1.0, activate=False))


def pairs_of(data: DataSet, part: str) -> set[tuple[str, str]]:
    of = getattr(data, part)
    return {(str(data.user_ids[u]), str(data.item_ids[i])) for u, i in zip(of.user_rows, of.item_rows, strict=True)}


# ---- what is held back -----------------------------------------------------------------------------------------------


def test_one_interaction_of_each_user_with_enough_is_held_back() -> None:
    data = with_everything(clips())
    held = held_back(data)
    had = Counter(data.train.user_rows.tolist())
    assert min(had.values()) < LEAST < max(had.values())
    assert Counter(held.valid.user_rows.tolist()) == {user: 1 for user, count in had.items() if count >= LEAST}
    assert pairs_of(held, "train") | pairs_of(held, "valid") == pairs_of(data, "train")
    assert not pairs_of(held, "train") & pairs_of(held, "valid")


def test_it_follows_from_the_ids_whatever_else_there_is() -> None:
    data = groups()
    before = dict(pairs_of(held_back(data), "valid"))
    # Rows in another order, and a further item for half of the users.
    order = np.random.default_rng(1).permutation(len(data.train))
    more = {(user, (user + 1) % N_ITEMS) for user in range(0, N_USERS, 2)}
    again = replace(data, train=data.train.take(order).concatenate(interactions(sorted(more))))
    after = dict(pairs_of(held_back(again), "valid"))
    changed = {user for user in before if after[user] != before[user]}
    # Only by the new item of the user itself, which comes first in one case in nine.
    assert all(after[user] == f"i{(int(user[1:]) + 1) % N_ITEMS}" for user in changed)
    assert len(changed) <= N_USERS // 4


def test_weights_stay_with_their_interactions() -> None:
    data = groups()
    weighed = replace(data.train, weights=np.arange(len(data.train), dtype=np.float64) + 1)
    held = held_back(replace(data, train=weighed))
    found = {
        (int(u), int(i)): w
        for part in (held.train, held.valid)
        for u, i, w in zip(part.user_rows, part.item_rows, part.weights, strict=True)  # type: ignore[arg-type]
    }
    of_all = zip(data.train.user_rows.tolist(), data.train.item_rows.tolist(), strict=True)
    assert found == {pair: n + 1 for n, pair in enumerate(of_all)}


# ---- what it is measured by ------------------------------------------------------------------------------------------


def test_figures_are_those_of_a_fit_without_what_was_held_back() -> None:
    held = held_back(groups())
    trained = train_kdiffe(held, SETTINGS, Silence(), fixed_epochs=2)
    of_users = measured(trained, held)
    found = figures(of_users)
    # The table alone ranks the held back item within its group: 22 of the group's items are not seen.
    assert found["n_users"] == N_USERS
    assert found["recall@20"] > 0.7
    history = interaction_matrix(held.train, N_USERS, N_ITEMS).toarray()
    z = np.random.default_rng(0).random((N_USERS, N_ITEMS))
    by_chance = np.mean([item in np.argsort(-(z[u] - 2 * history[u]))[:20] for u, item in _valid(held)])
    assert found["recall@20"] > 2 * by_chance
    # A user has one item to find: Recall is 1 or 0, and its standard error that of a share.
    share = found["recall@20"]
    assert found["standard_errors"]["recall@20"] == pytest.approx(np.sqrt(share * (1 - share) / (N_USERS - 1)))
    # Of some users alone.
    assert figures(of_users.take(np.arange(N_USERS) < 7))["n_users"] == 7
    assert figures(of_users.take(np.zeros(N_USERS, np.bool_))) == {}


def _valid(held: DataSet) -> list[tuple[int, int]]:
    return list(zip(held.valid.user_rows.tolist(), held.valid.item_rows.tolist(), strict=True))


def flat(found: Mapping[str, Any]) -> dict[str, float]:
    errors = {f"error of {name}": value for name, value in found["standard_errors"].items()}
    return {name: value for name, value in found.items() if name != "standard_errors"} | errors


def test_a_retrain_on_trial_says_its_figures_and_its_base_s(store: ModelStore, tmp_path: Path) -> None:
    base = store.open("v0001")
    newcomers = [(f"new{n}", f"i{n * N_GROUPS + m * N_GROUPS}") for n in range(3) for m in range(4)]
    run = tried(base, Log(tuple(newcomers)), tmp_path / "run")
    trial = run.metrics["trial"]
    assert trial["base"] == "v0001"
    assert trial["before"]["n_users"] == trial["known"]["n_users"] == N_USERS
    assert trial["valid"]["n_users"] == N_USERS + 3
    held = held_back(data_set_of(base))
    alone = train_kdiffe(held, SETTINGS, Silence(), fixed_epochs=int(base.manifest.training["epochs"]))
    assert flat(trial["before"]) == pytest.approx(flat(figures(measured(alone, held))))
    # It is fitted on everything none the less.
    assert len(run.data.train) == len(groups().train) + len(newcomers)
    # The next one need not try this one again.
    second = published(store, run)
    assert (tmp_path / "run" / "before").is_dir()
    third = tried(second, Log(), tmp_path / "third")
    assert third.metrics["trial"]["before"] == trial["valid"]
    assert flat(third.metrics["trial"]["valid"]) == pytest.approx(flat(trial["valid"]))
    assert not (tmp_path / "third" / "before").exists()
    # Without a trial it doesn't pass for having been on one.
    assert "trial" not in retrain(second, SETTINGS, Log(), Silence(), tmp_path / "fourth").metrics


def test_other_settings_are_compared_with_the_version_s_own(store: ModelStore, tmp_path: Path) -> None:
    base = store.open("v0001")
    other = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, learning_rate=1e-6))
    run = retrain(base, other, Log(), Silence(), tmp_path / "run", trial=True, own_settings=SETTINGS)
    held, epochs = held_back(data_set_of(base)), int(base.manifest.training["epochs"])
    for name, settings in (("before", SETTINGS), ("valid", other)):
        alone = train_kdiffe(held, settings, Silence(), fixed_epochs=epochs)
        assert flat(run.metrics["trial"][name]) == pytest.approx(flat(figures(measured(alone, held))))
    assert run.metrics["trial"]["before"]["recall@20"] > run.metrics["trial"]["valid"]["recall@20"]


# ---- and the gate ----------------------------------------------------------------------------------------------------


def test_a_log_of_noise_does_not_pass_the_gate_and_one_like_the_data_does(store: ModelStore, tmp_path: Path) -> None:
    base = store.open("v0001")
    rng = np.random.default_rng(5)
    noise = {(f"u{u}", f"i{i}") for u in range(N_USERS) for i in rng.choice(N_ITEMS, 24, replace=False)}
    alike = {
        (f"u{u}", f"i{int(i) * N_GROUPS + u % N_GROUPS}")
        for u in range(0, N_USERS, 6)
        for i in rng.choice(N_ITEMS // N_GROUPS, 2, replace=False)
    }
    ruined = published(store, tried(base, Log(tuple(sorted(noise))), tmp_path / "noise"))
    assert "worse by more than 5 %" in worse(ruined, base, 0.05)
    assert worse(published(store, tried(base, Log(tuple(sorted(alike))), tmp_path / "alike")), base, 0.1) == ""
    # Both carry the figures that their base was selected with: these say nothing.
    assert ruined.manifest.metrics.get("valid") == base.manifest.metrics.get("valid")
