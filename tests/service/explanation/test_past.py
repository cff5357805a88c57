"""What was served is explained after the log has moved on, after refreshes, after swaps; else it is clearly gone."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model_store.store import ModelStore
from service.errors import GoneError, InvalidRequestError, UnknownItemError, UnknownUserError
from service.explanation import past as past_module
from service.explanation.account import PLAIN, Wanted, explain
from service.explanation.past import PastModels
from service.index.exact import ExactIndex
from service.live.follower import replay
from service.live.model import LiveModel
from service.recommendation.recommender import recommend
from service.state.memory import MemoryState
from service.state.port import Change, Interaction
from tests.service.worlds import interactions, random_pairs
from tests.support.artifacts import World, publish_world

EVERY = 10


class Service:
    """A store, a log, and the model that serves at each moment, as a follower would bring it there."""

    def __init__(self, root):
        self.root = root
        self.artifact = publish_world(root, World(seed=1))
        self.state = MemoryState()
        self.past = PastModels(ModelStore(root), self.state)

    def write(self, count, seed):
        self.state.append(interactions(random_pairs(np.random.default_rng(seed), count)))

    def model(self, *, refresh_every=EVERY, at=None):
        model = LiveModel(ModelStore(self.root).open(), ExactIndex, start=0, refresh_every=refresh_every)
        replay(model, self.state, self.state.last_sequence() if at is None else at)
        return model

    def explain(self, user, item, name, **options):
        return self.past.explain(self.model(), user, item, name, **options)


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


def served(model, user, k=6):
    found = recommend(model, user, k)
    return found["recommendation_id"], {item["item_id"]: item["score"] for item in found["items"]}


def test_the_served_scores_are_explained_bit_for_bit_whatever_came_since(service):
    moments = []
    for step, count in enumerate((3, 9, 0, 21, 5)):
        service.write(count, step)
        model = service.model()
        moments += [(user, *served(model, user)) for user in ("u1", "u5", "u29")]
    publish_world(service.root, World(seed=2))  # another version is active now
    service.write(30, 9)
    np.random.default_rng(0).shuffle(moments)
    for user, name, items in moments:
        for item, score in items.items():
            found = service.explain(user, item, name)
            if found["strategy"] != "popular":
                assert found["score"] == score
            assert found["recommendation_id"] == name
            assert found["model_version"] == "v0001"
            total = found["self"] + sum(part["contribution"] for part in found["contributions"])
            assert abs(total - found["score"]) <= 1e-4 * max(1, abs(score))
    assert len(service.past._models) <= past_module.KEPT


def test_a_refresh_that_came_late_is_explained_as_it_was(service):
    service.write(25, 0)
    model = LiveModel(service.artifact, ExactIndex, start=0, refresh_every=EVERY)
    model.apply(service.state.read(0, 10))
    model.refresh()
    model.apply(service.state.read(10, 14))  # 20 was passed, its refresh has not been made
    name, items = served(model, "u3")
    assert name.split(".")[1:3] == ["24", "10"]
    for item, score in items.items():
        assert service.explain("u3", item, name)["score"] == score


def test_the_parts_are_those_of_the_moment(service):
    service.write(12, 0)
    then = service.model()
    name, items = served(then, "u1")
    service.write(12, 1)
    wanted = Wanted(frozenset({"paths", "counterfactual"}), k=3)
    item = next(iter(items))
    assert service.explain("u1", item, name, wanted=wanted) == explain(then, "u1", item, wanted)


def test_the_present_moment_is_explained_by_the_model_that_serves(service):
    model = service.model()
    name, items = served(model, "u1")
    assert service.past.explain(model, "u1", next(iter(items)), name)["recommendation_id"] == name
    assert not service.past._models


def test_what_can_not_be_rebuilt_is_gone(service, monkeypatch):
    service.write(12, 0)
    name, items = served(service.model(), "u1")
    item = next(iter(items))
    service.write(1, 1)
    version, sequence, refreshed_at, mark = name.split(".")
    for other, why in (
        (f"v0099.{sequence}.{refreshed_at}.{mark}", "v0099"),
        (f"{version}.999.{refreshed_at}.{mark}", "the log holds 1 to 13"),
        (f"{version}.{sequence}.{refreshed_at}.00000000", "another user"),
    ):
        with pytest.raises(GoneError, match=why):
            service.explain("u1", item, other)
    with pytest.raises(GoneError, match="another user"):
        service.explain("u2", item, name)
    with pytest.raises(UnknownItemError):
        service.explain("u1", "nothing", name)
    with pytest.raises(UnknownUserError):
        service.explain("nobody", item, name)
    monkeypatch.setattr(past_module, "MOST_ENTRIES", 5)
    with pytest.raises(GoneError, match="more than 5 entries"):
        service.explain("u1", item, name)


def test_a_pruned_version_and_a_compacted_log_are_gone(service):
    service.write(12, 0)
    name, items = served(service.model(), "u1")
    item = next(iter(items))
    service.explain("u1", item, name)
    service.state.compact(4)
    with pytest.raises(GoneError, match="the log holds 5 to 12, the version what is up to 0"):
        service.past.explain(service.model(at=0), "u1", item, name)
    for seed in (2, 3):
        publish_world(service.root, World(seed=seed))
    ModelStore(service.root).prune(1)
    with pytest.raises(GoneError, match="v0001"):
        service.past.explain(service.model(at=0), "u1", item, name)


def test_an_erased_user_is_explained_no_more_not_even_when_it_comes_back(service):
    service.write(12, 0)
    name, items = served(service.model(), "u1")
    item = next(iter(items))
    service.state.append([Change("erasure", "u1")])
    with pytest.raises(UnknownUserError):
        service.explain("u1", item, name)
    service.state.append([Interaction("u1", "i3", 0.0)])
    with pytest.raises(GoneError, match="erased since"):
        service.explain("u1", item, name)


def test_an_erasure_of_another_user_shows_in_the_bits_and_that_user_in_no_path(service):
    model = service.model()
    name, items = served(model, "u1")
    item = next(iter(items))
    wanted = Wanted(frozenset({"paths"}))
    before = service.past.explain(model, "u1", item, name, wanted)
    other = next(
        user["user_id"] for part in before["paths"]["items"] for user in part["users"] if user["user_id"] != "u1"
    )
    service.state.append([Change("erasure", other)])
    # The artifact still holds the erased user, and so does the moment before: the score is the one that was served.
    found = service.explain("u1", item, name, wanted=wanted)
    assert found["score"] == before["score"]
    for part, whole in zip(found["paths"]["items"], before["paths"]["items"], strict=True):
        assert other not in {user["user_id"] for user in part["users"]}
        assert part["own"] + sum(user["amount"] for user in part["users"]) + part["rest"] == pytest.approx(part["sum"])
        assert part["sum"] == whole["sum"]
    # Somebody who comes back after it is known again, but not by what was erased.
    service.state.append([Interaction(other, "i3", 0.0)])
    found = service.explain("u1", item, name, wanted=wanted)
    assert other not in {user["user_id"] for part in found["paths"]["items"] for user in part["users"]}


@pytest.mark.parametrize("name", ["", "v1", "v1.1.1.zz", "v1.1.2.00000000", "../v1.1.1.00000000", "v1.1.1.0000000g"])
def test_what_is_no_id_is_refused(service, name):
    with pytest.raises(InvalidRequestError):
        service.past.explain(service.model(), "u1", "i1", name)


def test_who_waits_for_a_rebuild_takes_no_thread_that_others_need(service):
    service.write(12, 0)
    name, scores = served(service.model(), "u1")
    service.write(15, 1)
    now = service.model()

    async def ask():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with service.past._lock:  # a rebuild that takes long
            waiting = [asyncio.create_task(service.past.told(now, "u1", item, name, PLAIN)) for item in scores]
            await asyncio.sleep(0.05)
            assert await asyncio.wait_for(asyncio.to_thread(str, "another request"), 20) == "another request"
            assert not any(task.done() for task in waiting)
        return await asyncio.gather(*waiting)

    assert {found["item_id"]: found["score"] for found in asyncio.run(ask())} == scores
