from __future__ import annotations

import numpy as np
import pytest

from service.errors import UnknownItemError, UnknownUserError
from service.explanation.account import explain
from service.recommendation.recommender import recommend
from tests.service.worlds import apply_all, live_model, logged, random_pairs
from tests.support.artifacts import World


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("self_loops", [True, False])
def test_an_explanation_adds_up_to_the_served_score(tmp_path, n_layers, self_loops):
    model = live_model(tmp_path, World(n_layers=n_layers, self_loops=self_loops, seed=n_layers), refresh_every=10)
    pairs = random_pairs(np.random.default_rng(n_layers), 27)
    for new in ([], pairs):
        apply_all(model, new)
        for user in sorted({"u0", "u1", "u29", *(user for user, _ in new)}):
            served = {item["item_id"]: item for item in recommend(model, user, 100)["items"]}
            seen = {item for other, item in model.edges() if other == user}
            for rank, item_id in enumerate(list(served)[:6], 1):
                found = explain(model, user, item_id)
                if served[item_id]["strategy"] != "popular":
                    assert found["score"] == served[item_id]["score"]
                    assert found["rank"] == rank
                assert found["strategy"] == served[item_id]["strategy"]
                parts = found["contributions"]
                magnitude = abs(found["self"]) + sum(abs(part["contribution"]) for part in parts)
                gap = abs(found["score"] - found["self"] - sum(part["contribution"] for part in parts))
                assert gap <= 1e-4 * magnitude
                assert found["additivity_error"] <= 1e-4
                assert {part["item_id"] for part in parts} == seen
                sizes = [abs(part["contribution"]) for part in parts]
                assert sizes == sorted(sizes, reverse=True)
                for part in parts:
                    assert part["contribution"] == pytest.approx(part["link"] + part["attention"] + part["direct"])
                    assert part["attention"] == pytest.approx(0.7 * part["similarity"] * part["link"])
                    assert part["share"] * magnitude == pytest.approx(part["contribution"])
                assert found["self_share"] * magnitude == pytest.approx(found["self"])


def test_a_seen_item_has_a_score_but_no_rank(tmp_path):
    model = live_model(tmp_path)
    user, item = min(model.edges())
    found = explain(model, user, item)
    assert found["rank"] is None
    assert found["score"] != 0


def test_an_item_without_a_vector_yet_explains_as_nothing(tmp_path):
    model = live_model(tmp_path)
    model.apply(logged([("u1", "fresh")]))
    found = explain(model, "u2", "fresh")
    assert (found["score"], found["rank"], found["additivity_error"]) == (0.0, None, 0.0)


def test_what_is_unknown_can_not_be_explained(tmp_path):
    model = live_model(tmp_path)
    with pytest.raises(UnknownUserError, match="nobody"):
        explain(model, "nobody", "i1")
    with pytest.raises(UnknownItemError, match="nothing"):
        explain(model, "u1", "nothing")
