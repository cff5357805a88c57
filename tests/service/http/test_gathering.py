from __future__ import annotations

import asyncio

import pytest

from service.http import gathering
from service.http.gathering import Gathering
from service.recommendation import recommender
from tests.service.worlds import live_model


@pytest.fixture
def model(tmp_path):
    return live_model(tmp_path)


@pytest.fixture
def groups(monkeypatch):
    """The lists that were made together."""
    made = []
    make = recommender.recommend_many

    def noted(model, wanted):
        made.append(list(wanted))
        return make(model, wanted)

    monkeypatch.setattr(recommender, "recommend_many", noted)
    return made


def ask(*wanted, returning=False):
    """Ask for (model, user id, k) at the same time."""

    async def run():
        together = Gathering()
        asked = [together.recommend(model, user, k) for model, user, k in wanted]
        return await asyncio.gather(*asked, return_exceptions=returning)

    return asyncio.run(run())


def test_lists_that_are_asked_for_at_the_same_time_are_made_together(model, groups):
    found = ask((model, "u1", 5), (model, "nobody", 3), (model, "u2", 7))
    assert groups == [[("u1", 5), ("nobody", 3), ("u2", 7)]]
    assert found == [recommender.recommend(model, user, k) for user, k in groups[0]]


def test_so_many_are_made_in_one_go_at_most(model, groups, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_TOGETHER", 4)
    found = ask(*[(model, f"u{n}", 5) for n in range(10)])
    assert [len(group) for group in groups] == [4, 4, 2]
    assert [it["user_id"] for it in found] == [f"u{n}" for n in range(10)]


def test_each_model_makes_its_own(model, groups, tmp_path):
    other = live_model(tmp_path)
    found = ask((model, "u1", 5), (other, "u1", 5), (model, "u2", 5))
    assert [len(group) for group in groups] == [2, 1]
    assert [it["model_version"] for it in found] == ["v0001", "v0002", "v0001"]


def test_one_that_fails_fails_alone(model, monkeypatch):
    read = model.views

    def broken(user_ids):
        if "u2" in user_ids:
            raise ZeroDivisionError
        return read(user_ids)

    monkeypatch.setattr(model, "views", broken)
    one, two, three = ask((model, "u1", 5), (model, "u2", 5), (model, "u3", 5), returning=True)
    assert (one["user_id"], three["user_id"]) == ("u1", "u3")
    assert isinstance(two, ZeroDivisionError)


def test_while_the_model_changes_the_event_loop_goes_on(model, groups):
    async def run():
        with model.lock.changing():
            asked = asyncio.create_task(Gathering().recommend(model, "u1", 5))
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert not asked.done()
        return await asked

    assert asyncio.run(run())["user_id"] == "u1"


def test_a_request_that_has_gone_away_keeps_nobody_from_its_list(model):
    async def run():
        together = Gathering()
        gone = asyncio.create_task(together.recommend(model, "u1", 5))
        stays = asyncio.create_task(together.recommend(model, "u2", 5))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(run())["user_id"] == "u2"
