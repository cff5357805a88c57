"""The paths behind a contribution against the dense powers of L̄."""

from __future__ import annotations

import numpy as np
import pytest

from service.explanation import paths as paths_module
from service.explanation.account import Wanted, explain
from service.state.port import Change
from tests.service.worlds import Dense, apply_all, changed, live_model, random_pairs
from tests.support.artifacts import World

PATHS = Wanted(frozenset({"paths"}))


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("self_loops", [True, False])
def test_every_path_is_its_term_of_the_powers_and_they_add_up(tmp_path, monkeypatch, n_layers, self_loops):
    monkeypatch.setattr(paths_module, "USERS", 3)
    monkeypatch.setattr(paths_module, "ITEMS", 4)
    model = live_model(tmp_path, World(n_layers=n_layers, self_loops=self_loops, seed=n_layers), refresh_every=10)
    pairs = random_pairs(np.random.default_rng(n_layers), 17)
    apply_all(model, pairs)  # T is of the first 10, the user's row of all
    then, now = Dense.of(model.artifact, pairs[:10]), Dense.of(model.artifact, pairs)
    alpha = model.form.alpha.astype(np.float64)
    deeper, power = np.zeros_like(then.base), then.base
    for layer in range(2, n_layers + 1):
        deeper, power = deeper + alpha[layer] * power, then.laplacian @ power
    first_item, first_now = len(then.user_ids), len(now.user_ids)
    followed = 0
    for user, item in [("u1", "i5"), ("u7", "i20"), (pairs[0][0], "i0"), ("u3", "i38")]:
        found = explain(model, user, item, PATHS)
        told = found["paths"]
        assert told is not None
        z = then.embeddings[first_item + then.item_ids.index(item)]
        total = sum(part["link"] + part["attention"] for part in found["contributions"])
        assert told["sum"] == pytest.approx(total)
        assert sum(part["sum"] for part in told["items"]) + told["rest"] == pytest.approx(told["sum"])
        scale = max(abs(part["sum"]) for part in told["items"]) + 1
        for part in told["items"]:
            if part["item_id"] not in then.item_ids:
                assert part["sum"] == 0
                continue
            i = first_item + then.item_ids.index(part["item_id"])
            weight = now.laplacian[now.user_ids.index(user), first_now + now.item_ids.index(part["item_id"])]
            own = alpha[1] * then.base[i] + then.laplacian[i, i] * deeper[i]
            assert part["own"] == pytest.approx(weight * own @ z, abs=1e-5 * scale)
            met = np.flatnonzero(then.laplacian[i, :first_item])
            assert part["n_users"] == len(met)
            terms = {then.user_ids[m]: weight * then.laplacian[i, m] * deeper[m] @ z for m in met}
            largest = sorted(terms.values(), key=abs, reverse=True)[:3]
            assert [u["amount"] for u in part["users"]] == pytest.approx(largest, abs=1e-5 * scale)
            for u in part["users"]:
                assert u["amount"] == pytest.approx(terms[u["user_id"]], abs=1e-5 * scale)
                who = then.user_ids.index(u["user_id"])
                assert u["met_item"] == (then.laplacian[who, first_item + then.item_ids.index(item)] != 0)
                followed += 1
            listed = sum(u["amount"] for u in part["users"])
            assert part["own"] + listed + part["rest"] == pytest.approx(part["sum"])
            assert part["rest"] == pytest.approx(sum(terms.values()) - listed, abs=1e-4 * scale)
    assert followed > 10


def test_an_item_without_a_vector_has_no_paths(tmp_path):
    model = live_model(tmp_path)
    apply_all(model, [("u1", "fresh")])
    assert explain(model, "u2", "fresh", PATHS)["paths"] == {"items": [], "rest": 0.0, "sum": 0.0}


def test_an_item_that_came_with_its_content_since_t_was_computed_has_paths_and_met_nobody(tmp_path):
    model = live_model(tmp_path, World(with_encoders=True), refresh_every=1000)
    nodes = model.readout.adjacency.n_nodes
    content = {"entities": [{"relation": "r0", "entity": "e1"}]}
    model.apply(changed(1, Change("item", item_id="fresh", content=content)))
    assert model.readout.n_items == len(model.items)
    assert model.readout.adjacency.n_nodes == nodes
    found = explain(model, "u2", "fresh", PATHS)
    told = found["paths"]
    assert told["items"]
    assert not any(user["met_item"] for item in told["items"] for user in item["users"])
    assert told["sum"] == pytest.approx(sum(part["link"] + part["attention"] for part in found["contributions"]))
