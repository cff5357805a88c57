"""Which items have a vector, at the start and through refreshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_store.artifact import Artifact
from service.index.exact import ExactIndex
from service.items import has_vector
from service.live.model import LiveModel
from service.recommendation.recommender import recommend
from service.state.port import Change, Interaction
from tests.service.worlds import changed, dense_table
from tests.support.artifacts import World, publish_world

# Nobody has met a world's last item.
LAST = "i39"


def put(item: str, *entities: str) -> Change:
    return Change("item", item_id=item, content={"entities": [{"relation": "r0", "entity": e} for e in entities]})


def unlearned(root: Path, world: World) -> Artifact:
    """A world whose last item has learned nothing: its rows of X, C and Z are zero."""
    arrays = {}
    known = publish_world(root / "known", world)
    for name in ("form.base", "form.constant", "item_embeddings"):
        arrays[name] = np.array(known.array(name))
        arrays[name][-1] = 0
    return publish_world(root / "unlearned", world, extra=arrays)


def without_vector(model: LiveModel) -> set[str]:
    """The items that have none: what is told of each is where a list has it."""
    found = {item for item in model.items.to_array().tolist() if not has_vector(model, item)}
    seen = {item for user, item in model.edges() if user == "u1"}
    listed = recommend(model, "u1", 100)["items"]
    assert {item["item_id"] for item in listed if item["strategy"] == "popular"} == found - seen
    assert [item["strategy"] for item in listed] == sorted(item["strategy"] for item in listed)  # those stand last
    return found


def test_an_item_of_which_nothing_is_known_has_no_vector_before_a_refresh_and_after_it(tmp_path):
    artifact = publish_world(tmp_path, World(with_encoders=True))
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    assert without_vector(model) == set()
    assert model.readout.absent is None
    model.apply(changed(1, put("bare"), put("told", "e1"), put("met"), put("barer")))
    assert without_vector(model) == {"bare", "met", "barer"}
    model.refresh()
    assert without_vector(model) == {"bare", "met", "barer"}
    model.apply(changed(5, Interaction("u2", "met", 0.0), put("later", "e2")))
    assert without_vector(model) == {"bare", "met", "barer"}
    model.refresh()
    assert without_vector(model) == {"bare", "barer"}
    # Laid anew over what the refresh made: what it knew nothing of is known by its record now.
    model.apply(changed(7, put("bare", "e3"), put("told")))
    assert without_vector(model) == {"told", "barer"}
    model.apply(changed(9, put("bare"), Change("removal", "u2", "met")))
    assert without_vector(model) == {"bare", "told", "barer"}
    model.refresh()
    assert without_vector(model) == {"bare", "told", "met", "barer"}


@pytest.mark.parametrize("with_table", [True, False])
def test_an_item_that_has_learned_nothing_is_scored_where_b_reaches_it_alone(tmp_path, with_table):
    artifact = unlearned(tmp_path, World(with_table=with_table))
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    direct = dense_table(artifact, 40)[:, 39]
    assert direct.any() == with_table
    for _ in range(2):
        assert not model.readout.item_embeddings[39].any()
        assert without_vector(model) == (set() if with_table else {LAST})
        for user in ("u1", "u2", "u3"):
            seen = [model.items.row(item) for other, item in model.edges() if other == user]
            found = {item["item_id"]: item["score"] for item in recommend(model, user, 100)["items"]}
            # By B, or by how many have met it: nobody.
            assert found[LAST] == pytest.approx(direct[seen].sum())
        model.refresh()
