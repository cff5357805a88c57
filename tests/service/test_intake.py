from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from service.errors import NotReadyError, StateError
from service.intake import Intake
from service.live.follower import Follower
from service.state.memory import MemoryState
from service.state.port import Appended, Interaction
from tests.service.worlds import live_model


class SlowState(MemoryState):
    """A state whose writes end when the test says so; `submitted` tells what was asked of it, and how far."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[str] = []
        self._open: list[tuple[Future[Appended], list[Interaction]]] = []

    def submit(self, entries):
        if entries[0].user_id == "unspeakable":
            raise StateError("no text")
        future: Future[Appended] = Future()
        self.submitted.append(entries[0].user_id)
        self._open.append((future, entries))
        return future

    def finish(self) -> None:
        """End the writes that are under way."""
        under_way, self._open = self._open, []
        for future, entries in under_way:
            if entries[0].user_id == "broken":
                future.set_exception(StateError("the disk is full"))
            else:
                future.set_result(self.append(entries))


class Followed:
    """A registry of one model."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower

    @property
    def applied(self) -> int:
        return self.follower.applied

    @property
    def settled(self) -> int:
        return self.follower.model.settled_sequence

    def wake(self) -> None:
        self.follower.wake()

    async def wait_applied(self, sequence: int) -> None:
        await self.follower.wait_for(sequence)


@pytest.fixture
def world(tmp_path):
    state = SlowState()
    follower = Follower(live_model(tmp_path), state, poll_interval=0.01)
    follower.start()
    intake = Intake(state, Followed(follower), max_lag=100, apply_timeout=20)
    yield SimpleNamespace(state=state, follower=follower, intake=intake)
    follower.stop()


def one(user_id: str) -> list[Interaction]:
    return [Interaction(user_id, "i1", 0.0)]


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_arrives_while_a_group_is_written_forms_the_next_one(world):
    async def run() -> list[Appended]:
        first = [asyncio.create_task(world.intake.take(one(name))) for name in ("a", "b")]
        await until(lambda: len(world.state.submitted) == 2)
        later = [asyncio.create_task(world.intake.take(one(name))) for name in ("c", "d", "e")]
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.state.submitted == ["a", "b"]
        world.state.finish()
        await until(lambda: len(world.state.submitted) == 5)
        world.state.finish()
        return await asyncio.gather(*first, *later)

    told = asyncio.run(run())
    assert [appended.sequence for appended in told] == [1, 2, 3, 4, 5]
    assert world.follower.applied == 5


def test_nothing_is_acknowledged_before_it_is_durable_and_applied(world):
    held = world.follower.model.lock.changing()

    async def run() -> None:
        asked = asyncio.create_task(world.intake.take(one("a")))
        await until(lambda: world.state.submitted == ["a"])
        assert not asked.done()
        with held:
            world.state.finish()
            await asyncio.sleep(0.05)
            assert not asked.done()  # durable, not applied
        assert (await asked).sequence == 1
        assert world.follower.applied == 1

    asyncio.run(run())


def test_one_batch_that_fails_fails_alone(world):
    async def run() -> list[object]:
        names = ("a", "broken", "unspeakable", "b")
        asked = [asyncio.create_task(world.intake.take(one(name))) for name in names]
        await until(lambda: len(world.state.submitted) == 3)
        world.state.finish()
        return await asyncio.gather(*asked, return_exceptions=True)

    a, broken, unspeakable, b = asyncio.run(run())
    assert (a, b) == (Appended(1, 0, 1), Appended(1, 0, 2))
    assert isinstance(broken, StateError)
    assert "full" in str(broken)
    assert isinstance(unspeakable, StateError)
    assert "no text" in str(unspeakable)


def test_a_request_that_has_gone_away_keeps_nobody_from_being_told(world):
    async def run() -> Appended:
        gone = asyncio.create_task(world.intake.take(one("a")))
        stays = asyncio.create_task(world.intake.take(one("b")))
        await until(lambda: len(world.state.submitted) == 2)
        gone.cancel()
        await asyncio.sleep(0)
        world.state.finish()
        return await stays

    assert asyncio.run(run()).sequence == 2
    assert world.follower.applied == 2  # what was written counts


def test_a_request_that_has_gone_away_and_fails_keeps_nobody_from_being_told(world):
    async def run() -> Appended:
        gone = asyncio.create_task(world.intake.take(one("unspeakable")))
        stays = asyncio.create_task(world.intake.take(one("b")))
        await asyncio.sleep(0)
        assert world.intake.waiting == 2
        gone.cancel()
        await until(lambda: world.state.submitted == ["b"])
        world.state.finish()
        return await stays

    assert asyncio.run(run()).sequence == 1


def test_what_is_durable_and_not_applied_in_time_says_so(world):
    world.follower.stop()
    stuck = Intake(world.state, Followed(Stuck(world.follower)), max_lag=100, apply_timeout=0.05)

    async def run() -> None:
        asked = asyncio.create_task(stuck.take(one("a")))
        await until(lambda: world.state.submitted == ["a"])
        world.state.finish()
        with pytest.raises(NotReadyError, match="safe on disk"):
            await asked

    asyncio.run(run())


def test_what_a_log_that_was_set_back_takes_is_not_told_to_be_applied(world):
    async def take(*names: str) -> list[object]:
        asked = [asyncio.create_task(world.intake.take(one(name))) for name in names]
        await until(lambda: world.state.submitted[-1:] == [names[-1]])
        world.state.finish()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert asyncio.run(take("a", "b")) == [Appended(1, 0, 1), Appended(1, 0, 2)]
    emptied = SlowState()
    world.intake = Intake(emptied, Followed(world.follower), max_lag=100, apply_timeout=20)
    world.state = emptied  # which the follower has not looked at yet
    [told] = asyncio.run(take("c"))
    assert isinstance(told, NotReadyError)
    assert "set back" in str(told)
    assert "up to 1" in str(told)
    assert len(emptied.read(0, 10)) == 1


class Stuck:
    """A follower that applies nothing."""

    def __init__(self, follower: Follower) -> None:
        self.model = follower.model
        self.applied = 0

    def check(self) -> None:
        """It has not failed."""

    def wake(self) -> None:
        """Nothing happens."""

    async def wait_for(self, sequence: int) -> None:
        await asyncio.sleep(60)


def test_writes_are_refused_while_too_many_wait(world):
    world.follower.stop()
    world.state.append(one("a") * 101)

    async def run() -> None:
        with pytest.raises(NotReadyError, match="101 interactions wait"):
            await world.intake.take(one("b"))

    asyncio.run(run())
    assert world.state.submitted == []


def test_a_failed_write_is_remembered_until_one_succeeds_or_time_has_passed(world, monkeypatch):
    async def take(name: str) -> None:
        asked = asyncio.create_task(world.intake.take(one(name)))
        await until(lambda: world.state.submitted[-1:] == [name])
        world.state.finish()
        await asyncio.gather(asked, return_exceptions=True)

    assert world.intake.failure is None
    asyncio.run(take("broken"))
    assert world.intake.failure == "the disk is full"
    asyncio.run(take("a"))
    assert world.intake.failure is None
    asyncio.run(take("broken"))
    monkeypatch.setattr("service.intake.FAILURE_COUNTS", 0.0)
    assert world.intake.failure is None


def test_what_waits_to_be_written_counts_as_waiting(world):
    async def run() -> None:
        first = asyncio.create_task(world.intake.take(one("a")))
        await until(lambda: world.state.submitted == ["a"])
        held = asyncio.create_task(world.intake.take(one("b") * 101))
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError, match="101 interactions wait"):
            await world.intake.take(one("c"))
        world.state.finish()
        await first
        await until(lambda: world.state.submitted == ["a", "b"])
        world.state.finish()
        assert (await held).accepted == 101

    asyncio.run(run())
