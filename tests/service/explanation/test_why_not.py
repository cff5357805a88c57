"""Items that a list holds for their number of interactions; those that the model ranks: test_counterfactual.py."""

from __future__ import annotations

import pytest

from service.explanation.account import Explanation, Wanted, explain
from service.live.model import LiveModel
from service.recommendation.recommender import Wish, recommend_page
from service.recommendation.selection import ItemFilter
from service.state.port import Change, Interaction
from tests.service.worlds import changed, live_model

LAMPS = ItemFilter(any_of=("lamps",))


def lamp(item: str) -> Change:
    return Change("item", item_id=item, content={"categories": ["lamps"]})


@pytest.fixture(scope="module", params=[False, True], ids=["put", "refreshed"])
def model(request, tmp_path_factory):
    """Three lamps of which nothing is known, one of them met by somebody new, another one newer than the readout."""
    model = live_model(tmp_path_factory.mktemp("store"), refresh_every=1000)
    model.apply(changed(1, lamp("lamp"), lamp("met"), lamp("i3")))
    if request.param:
        model.refresh()
    model.apply(changed(4, Interaction("stranger", "met", 0.0), lamp("newer")))
    return model


def told(model: LiveModel, user: str, item: str, k: int, where: ItemFilter | None = None) -> Explanation:
    return explain(model, user, item, Wanted(frozenset({"why_not"}), k, where=where))


@pytest.mark.parametrize("where", [None, LAMPS], ids=["all", "lamps"])
@pytest.mark.parametrize("user", ["u2", "u29", "stranger"])
def test_an_item_stands_where_the_list_that_is_served_has_it(model, user, where):
    served = recommend_page(model, user, Wish(100, where or ItemFilter()))["items"]
    last = len(served)
    by_count = [item for item in served if item["strategy"] == "popular"]
    assert {"lamp", "newer"} <= {item["item_id"] for item in by_count}
    for place, item in enumerate(served, 1):
        for k in {place - 1, place, last} - {0}:
            found = told(model, user, item["item_id"], k, where)
            assert found["strategy"] == item["strategy"]
            why = found["why_not"]
            assert why is not None
            assert (why["rank"], why["in_list"]) == (place, place <= k)
            if place <= k:
                assert why["rules"] == []
            elif len(by_count) == last:  # nothing is known of the user
                assert why["rules"] == ["no_evidence", "outranked"]
            else:
                assert why["rules"] == ["no_vector" if item in by_count else "outranked"]
            if item in by_count:
                kth = served[k - 1]
                cutoff = kth["score"] if kth in by_count else None
                assert why["cutoff"] == cutoff
                assert why["margin"] == (None if cutoff is None else item["score"] - cutoff)


def test_what_no_list_holds_has_its_rule_and_no_other(model):
    seen = model.items.id_of(int(model.user("u2").seen[0]))
    other = next(f"i{n}" for n in range(40) if f"i{n}" not in {seen, "i3"} and ("u2", f"i{n}") not in model.edges())

    def rules(item, where=None):
        why = told(model, "u2", item, 100, where)["why_not"]
        assert why is not None
        assert not why["in_list"]
        return why["rules"]

    assert rules(seen) == ["seen"]
    assert rules(other, LAMPS) == ["filtered"]
    assert rules("lamp", ItemFilter(exclude=("lamp",))) == ["filtered"]


def test_what_is_said_of_an_item_at_the_end_is_true(tmp_path):
    model = live_model(tmp_path, refresh_every=1000)
    model.apply(changed(1, lamp("lamp"), Interaction("u1", "met", 0.0), Interaction("stranger", "strange", 0.0)))

    def sentence(item):
        return explain(model, "u2", item)["sentence"]

    assert "nothing is known yet that would place it" in sentence("lamp")
    assert "counts from the next refresh on" in sentence("met")
    model.refresh()
    assert "nothing is known yet that would place it" in sentence("lamp")
    assert "“met” ranks" in sentence("met")
    # Who has met it has chosen nothing else.
    assert "nothing is known yet that would place it" in sentence("strange")
    model.apply(changed(4, Change("withdrawal", item_id="met")))
    assert sentence("met") == "“met” is withdrawn: no list holds it."


def test_a_seen_item_s_score_comes_from_the_choice_itself_too(tmp_path):
    model = live_model(tmp_path)
    said = set()
    for user, item in sorted(model.edges()):
        text = explain(model, user, item)["sentence"]
        assert text.startswith(f"“{item}” was chosen already; ")
        assert "because" not in text
        assert f"“{item}” (" not in text
        said.add("the choice itself" in text)
    assert said == {True, False}
