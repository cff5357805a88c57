"""What every state store must do; the twins' tests mix it in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import SetBackError, StateError
from service.state.lines import export_state, import_lines, read_backup, write_backup
from service.state.memory import MemoryState
from service.state.port import Change, Interaction, Interactions, Job, LogEntry, Position, Record, StateStore


def interaction(user: str = "u", item: str = "i", event_id: str | None = None) -> Interaction:
    return Interaction(user, item, 1.5, "play", event_id)


def put(item: str, **content: object) -> Change:
    return Change("item", item_id=item, content=content, timestamp=2.0)


def sequences(state: StateStore) -> list[int]:
    return [entry.sequence for entry in state.read(state.position().compacted, 1000)]


class StateContract:
    """`make` opens a new, empty state."""

    def make(self, directory: Path) -> StateStore:
        raise NotImplementedError

    @pytest.fixture
    def state(self, tmp_path: Path) -> Iterator[StateStore]:
        state = self.make(tmp_path / "state")
        yield state
        state.close()

    # ---- the log -------------------------------------------------------------------------------------------------

    def test_an_empty_log_ends_at_0(self, state):
        assert state.last_sequence() == state.seen == 0
        assert state.read(0, 10) == []
        assert len(state.state_id) == 32
        assert state.position() == Position(state.state_id, 0, 0)

    def test_what_was_appended_is_read_in_order(self, state):
        assert state.append([interaction("a", "x", "1"), interaction("ü b/c", "y")]).sequence == 2
        assert state.append([interaction("c", "z")]).sequence == 3
        assert state.read(0, 10) == [
            LogEntry(1, "a", "x", 1.5, "play", "1"),
            LogEntry(2, "ü b/c", "y", 1.5, "play", None),
            LogEntry(3, "c", "z", 1.5, "play", None),
        ]
        assert [it.sequence for it in state.read(1, 1)] == [2]
        assert state.read(3, 10) == []
        assert state.read(0, 0) == []
        assert state.last_sequence() == state.seen == 3

    def test_interactions_are_read_as_columns_too(self, state):
        state.append([interaction("a", "x", "1"), interaction('ü "b"/\\c', "y")])
        state.append([interaction("c", "z")])
        assert state.interactions(0, 10) == Interactions(0, ["a", 'ü "b"/\\c', "c"], ["x", "y", "z"])
        assert state.interactions(1, 1) == Interactions(1, ['ü "b"/\\c'], ["y"])
        assert state.interactions(3, 10) is None
        assert state.interactions(0, 0) is None
        assert state.seen == 3

    def test_what_is_not_interactions_alone_is_not_columns(self, state):
        state.append([interaction("a", "x"), interaction("b", "y"), put("w"), interaction("b", "w")])
        assert state.interactions(0, 4) is None
        assert state.interactions(2, 1) is None
        assert state.interactions(0, 2) == Interactions(0, ["a", "b"], ["x", "y"])
        assert state.interactions(3, 9) == Interactions(3, ["b"], ["w"])
        state.append([Change("erasure", user_id="b")])
        assert state.interactions(0, 2) is None  # the second one is of an erased user
        assert state.interactions(0, 1) == Interactions(0, ["a"], ["x"])

    def test_times_come_back_to_the_bit(self, state):
        times = [0.0, -1.0, 1767225600.123457, 0.1 + 0.2, 1e300]
        state.append([Interaction("u", "i", time) for time in times])
        assert [entry.timestamp for entry in state.read(0, 10)] == times

    def test_an_event_id_counts_once_within_and_across_batches(self, state):
        first = state.append([interaction(event_id="a"), interaction(event_id="a"), interaction(event_id="b")])
        assert (first.accepted, first.duplicates, first.sequence) == (2, 1, 2)
        again = state.append([interaction("other", event_id="a"), interaction()])
        assert (again.accepted, again.duplicates, again.sequence) == (1, 1, 3)
        change = state.append([replace(put("x"), event_id="b")])
        assert (change.accepted, change.duplicates) == (0, 1)
        assert sequences(state) == [1, 2, 3]
        assert state.record("item", "x") is None

    def test_without_an_event_id_every_interaction_counts(self, state):
        assert state.append([interaction(), interaction(), interaction(event_id="")]).accepted == 3

    def test_an_empty_batch_changes_nothing(self, state):
        assert state.append([]).sequence == 0

    def test_sequence_numbers_have_no_gaps_whatever_is_sent(self, tmp_path):
        # A function of its own for each twin: hypothesis wants one executor for each.
        @settings(max_examples=15, deadline=None)
        @given(st.lists(st.lists(st.sampled_from("abcde") | st.none(), max_size=5), max_size=8))
        def check(batches: list[list[str | None]]) -> None:
            state = self.make(tmp_path / str(len(list(tmp_path.iterdir()))))
            expected: list[str | None] = []
            for batch in batches:
                for event_id in batch:
                    if event_id is None or event_id not in expected:
                        expected.append(event_id)
                assert state.append([interaction(event_id=event_id) for event_id in batch]).sequence == len(expected)
            found = state.read(0, 1000)
            assert [it.sequence for it in found] == list(range(1, len(expected) + 1))
            assert [it.event_id for it in found] == expected
            state.close()

        check()

    def test_many_callers_at_once_lose_nothing(self, state):
        def work(name: str) -> None:
            for n in range(20):
                state.append([interaction(name, str(n)), interaction(name, str(n), f"{name}-{n}")])

        threads = [Thread(target=work, args=(f"t{t}",)) for t in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = state.read(0, 1000)
        assert [it.sequence for it in found] == list(range(1, 201))
        for t in range(5):  # each caller's own are in its order, a batch's side by side
            mine = [it for it in found if it.user_id == f"t{t}"]
            assert [it.item_id for it in mine] == [str(n) for n in range(20) for _ in range(2)]

    def test_a_log_that_was_set_back_is_told(self, state):
        state.append([interaction()])
        with pytest.raises(SetBackError, match="set back"):
            state.read(2, 10)

    # ---- changes -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "removal", "user_id": "u"},
            {"kind": "erasure", "user_id": "u", "item_id": "i"},
            {"kind": "item", "item_id": "i"},
            {"kind": "user", "content": {}},
            {"kind": "withdrawal", "item_id": "i", "content": {}},
        ],
    )
    def test_a_change_names_what_it_is_about_and_nothing_else(self, fields):
        with pytest.raises(ValueError, match="and nothing else"):
            Change(**fields)

    def test_records_are_put_and_withdrawn_in_the_log_s_order(self, state):
        state.append([put("x", title="ü", tags=["a"], year=1999), Change("user", "x", content={"age": 5})])
        assert state.record("item", "x") == Record("x", {"title": "ü", "tags": ["a"], "year": 1999}, 1)
        assert state.record("user", "x") == Record("x", {"age": 5}, 2)
        state.append([put("x", title="new"), put("y"), put("z"), Change("withdrawal", item_id="y")])
        assert sorted(state.records("item"), key=lambda r: r.external_id) == [
            Record("x", {"title": "new"}, 3),
            Record("z", {}, 5),
        ]
        assert state.record("item", "y") is None
        assert [(e.kind, e.item_id, e.content) for e in state.read(2, 10)] == [
            ("item", "x", {"title": "new"}),
            ("item", "y", {}),
            ("item", "z", {}),
            ("withdrawal", "y", None),
        ]
        assert [record.external_id for record in state.records("user")] == ["x"]

    def test_a_removal_is_logged(self, state):
        state.append([interaction("a", "x"), Change("removal", "a", "x", timestamp=3.0, event_id="r")])
        assert state.read(1, 10) == [LogEntry(2, "a", "x", 3.0, "", "r", "removal")]

    def test_an_erased_user_is_nowhere_but_in_the_erasure(self, state):
        state.append(
            [
                interaction("a", "x", "key-a"),
                interaction("b", "x", "key-b"),
                Change("user", "a", content={"name": "Ada"}),
                Change("removal", "a", "x"),
                interaction("a", "y"),
                Change("item", item_id="a", content={}),
            ]
        )
        assert state.append([Change("erasure", "a", timestamp=9.0)]).sequence == 7
        assert [(e.sequence, e.kind, e.user_id, e.item_id, e.event_id, e.content) for e in state.read(0, 10)] == [
            (1, "erased", "", "x", None, None),
            (2, "interaction", "b", "x", "key-b", None),
            (3, "erased", "", "", None, None),
            (4, "erased", "", "", None, None),
            (5, "erased", "", "y", None, None),
            (6, "item", "", "a", None, {}),
            (7, "erasure", "a", "", None, None),
        ]
        assert [e.sequence for e in state.read(2, 3)] == [3, 4, 5]
        assert state.record("user", "a") is None
        assert state.record("item", "a") is not None
        # The keys are gone too, and who comes back is someone new.
        assert state.append([interaction("a", "z", "key-a")]).accepted == 1
        assert state.read(7, 10)[0].user_id == "a"

    def test_types_have_weights(self, state):
        assert state.types() == {}
        state.set_type("buy", 3.0)
        state.set_type("play", 1.0)
        state.set_type("buy", 5.0)
        assert state.types() == {"buy": 5.0, "play": 1.0}

    def test_documents_are_kept_by_kind_and_name(self, state):
        assert state.documents("thing") == {}
        state.put_document("thing", "b c", {"n": 1})
        state.put_document("thing", "a", {"n": 2})
        state.put_document("other", "a", {"text": "ü"})
        state.put_document("thing", "b c", {"n": 3, "deep": [{"x": None}]})
        assert state.documents("thing") == {"a": {"n": 2}, "b c": {"n": 3, "deep": [{"x": None}]}}
        assert state.documents("other") == {"a": {"text": "ü"}}
        assert state.drop_document("thing", "a")
        assert not state.drop_document("thing", "a")
        assert list(state.documents("thing")) == ["b c"]
        assert state.last_sequence() == 0

    # ---- compaction ----------------------------------------------------------------------------------------------

    def test_after_compaction_the_log_goes_on_where_it_ended_and_keys_are_kept(self, state):
        state.append([interaction(event_id=str(n)) for n in range(5)])
        state.append([put("x", n=1)])
        assert state.compact(3) == Position(state.state_id, 6, 3)
        assert sequences(state) == [4, 5, 6]
        for after in (0, 2):
            with pytest.raises(StateError, match="begins at 4") as caught:
                state.read(after, 10)
            assert not isinstance(caught.value, SetBackError)
        assert state.compact(6) == Position(state.state_id, 6, 6)
        assert state.compact(2) == Position(state.state_id, 6, 6)  # what is gone stays gone
        assert state.read(6, 10) == []
        assert state.append([interaction(event_id="0")]).duplicates == 1
        assert state.append([interaction()]).sequence == 7
        assert state.record("item", "x") == Record("x", {"n": 1}, 6)
        assert state.last_sequence() == 7

    def test_compaction_forgets_keys_where_it_is_told_to(self, state):
        state.append([interaction(event_id=str(n)) for n in range(4)])
        state.compact(3, forget_keys=2)
        assert state.append([interaction(event_id=str(n)) for n in range(4)]).accepted == 2  # 0 and 1 are new again

    @pytest.mark.parametrize(("upto", "forget"), [(3, 0), (1, 2), (-1, 0), (2, -1)])
    def test_what_is_not_there_can_not_be_compacted(self, state, upto, forget):
        state.append([interaction(), interaction()])
        with pytest.raises(StateError, match="can't go"):
            state.compact(upto, forget)
        assert sequences(state) == [1, 2]

    def test_erasing_leaves_compacted_parts_alone(self, state):
        state.append([interaction("a", "x"), interaction("a", "y"), interaction("b", "y")])
        state.compact(1)
        state.append([Change("erasure", "a")])
        assert [(e.sequence, e.kind, e.user_id) for e in state.read(1, 10)] == [
            (2, "erased", ""),
            (3, "interaction", "b"),
            (4, "erasure", "a"),
        ]
        state.compact(3)
        assert [e.kind for e in state.read(3, 10)] == ["erasure"]

    # ---- in and out ----------------------------------------------------------------------------------------------

    def test_the_log_is_exported_as_json_lines(self, state, tmp_path):
        state.append([interaction("ü", str(n)) for n in range(5)])
        state.set_type("play", 2.5)
        assert state.export(tmp_path / "log.jsonl", 3) == 3
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["sequence"] for line in lines] == [1, 2, 3]
        assert lines[2] == {
            "sequence": 3,
            "kind": "interaction",
            "user_id": "ü",
            "item_id": "2",
            "timestamp": 1.5,
            "type": "play",
            "weight": 2.5,
            "event_id": None,
        }
        assert state.export(tmp_path / "log.jsonl", 0) == 0
        state.compact(2)
        assert state.export(tmp_path / "log.jsonl", 5) == 3

    def fill(self, state: StateStore) -> None:
        state.append([interaction("a", "x", "k1"), put("x", n=1), put("y", n=2), interaction("b", "x", "k2")])
        state.append([Change("user", "a", content={"age": 3}), interaction("gone", "y", "k3")])
        state.set_type("play", 0.5)
        state.compact(3)
        state.append(
            [put("x", n=3), Change("erasure", "gone"), interaction("a", "z", "k4"), Change("removal", "b", "x")]
        )

    def test_what_was_exported_is_taken_up_by_another_state_and_counts_once(self, state, tmp_path):
        self.fill(state)
        path = tmp_path / "all.jsonl"
        count = export_state(state, path)
        assert count == len(path.read_text(encoding="utf-8").splitlines())
        other = self.make(tmp_path / "other")
        done = import_lines(other, path, 7.0, batch=2)
        assert (done.accepted, done.duplicates, done.types) == (count - 1, 0, 1)
        # x's record of before the compaction is no more; y's is put again.
        assert [(e.kind, e.user_id, e.item_id) for e in other.read(0, 100)] == [
            ("item", "", "y"),
            ("interaction", "b", "x"),
            ("user", "a", ""),
            ("item", "", "x"),
            ("erasure", "gone", ""),
            ("interaction", "a", "z"),
            ("removal", "b", "x"),
        ]
        assert other.record("item", "x").content == {"n": 3}
        assert other.record("item", "y").content == {"n": 2}
        assert other.types() == {"play": 0.5}
        again = import_lines(other, path, 7.0)
        assert (again.accepted, again.duplicates) == (5, 2)  # the two interactions had keys
        other.close()

    def test_a_backup_is_the_whole_state(self, state, tmp_path):
        self.fill(state)
        state.put_document("thing", "a", {"n": 1})
        state.add_job(Job("j1", "failed", 1.0, "v0001", 3, error="no", finished_at=2.0))
        state.add_job(Job("j2", "running", 3.0, "v0001", 3, owner="me", heartbeat_at=4.0))
        path = tmp_path / "state.backup"
        assert write_backup(state.backup(), path) == 7
        state.append([interaction("later", "x")])
        for other in (self.make(tmp_path / "other"), MemoryState()):
            other.restore(read_backup(path))
            assert other.position() == Position(state.state_id, 10, 3)
            assert other.read(3, 100) == state.read(3, 7)
            assert other.record("item", "x") == Record("x", {"n": 3}, 7)
            assert other.record("item", "y") == Record("y", {"n": 2}, 3)
            assert other.record("user", "a") == Record("a", {"age": 3}, 5)
            assert other.types() == {"play": 0.5}
            assert other.documents("thing") == {"a": {"n": 1}}
            assert other.jobs() == state.jobs()
            assert [e.kind for e in other.read(3, 100)].count("erased") == 1
            keys = [interaction(event_id=f"k{n}") for n in (1, 2, 3, 4)]
            assert other.append(keys).accepted == 1  # the erased user's key is free
            with pytest.raises(StateError, match="empty"):
                other.restore(read_backup(path))
            other.close()

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def test_one_job_runs_and_one_waits(self, state):
        first = Job("j1", "queued", 1.0, "v0001", 7, trigger="schedule")
        assert state.take_job("me", 1.5) is None
        assert state.add_job(first) == first
        assert state.add_job(replace(first, job_id="j2")) == first
        # Times must come back to the bit: they have more digits than some languages' numbers are written with.
        taken = state.take_job("me", 1767225600.1234567)
        expected = replace(first, state="running", owner="me", heartbeat_at=1767225600.1234567, attempts=1)
        assert taken == expected == state.job("j1")
        second = replace(first, job_id="j2")
        assert state.add_job(second) == second
        assert state.add_job(replace(first, job_id="j3")) == second
        assert state.add_job(replace(first, created_at=9.0)) == expected  # known by its name
        assert state.take_job("other", 3.0) is None  # one runs
        assert state.update_job(replace(taken, state="failed", error="no", finished_at=2.0, log="last words"))
        assert state.take_job("other", 3.0).job_id == "j2"
        assert [j.job_id for j in state.jobs()] == ["j2", "j1"]
        assert [j.job_id for j in state.jobs(1)] == ["j2"]
        assert state.job("j1") == replace(expected, state="failed", error="no", finished_at=2.0, log="last words")
        assert state.job("j3") is None
        assert state.add_job(first).state == "failed"  # a name is given once

    def test_a_job_is_taken_once_whoever_asks(self, state):
        state.add_job(Job("j1", "queued", 1.0, "", 0))
        taken = []
        threads = [Thread(target=lambda t=t: taken.append(state.take_job(f"w{t}", 2.0))) for t in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (job,) = [job for job in taken if job is not None]
        assert state.job("j1") == job

    def test_who_has_lost_a_job_can_not_change_it(self, state):
        state.add_job(Job("j1", "queued", 1.0, "", 0))
        mine = state.take_job("me", 2.0)
        given_up = replace(mine, state="queued", owner="")
        assert not state.update_job(given_up, owned_by="somebody")
        assert state.update_job(given_up, owned_by="me")
        assert state.take_job("other", 3.0).attempts == 2
        assert not state.update_job(replace(mine, progress=0.9), owned_by="me")
        assert state.job("j1").progress == 0.0
        assert state.update_job(replace(mine, state="cancelled"))

    def test_a_job_is_not_changed_in_a_phase_that_is_excepted(self, state):
        state.add_job(Job("j1", "queued", 1.0, "", 0))
        mine = state.take_job("me", 2.0)
        cancelled = replace(mine, state="cancelled")
        assert state.update_job(replace(mine, phase="swap"), owned_by="me")
        assert not state.update_job(cancelled, unless_phase="swap")
        assert state.job("j1") == replace(mine, phase="swap")
        assert state.update_job(cancelled, unless_phase="gate")
        assert state.job("j1") == cancelled

    def test_a_job_that_has_ended_never_changes(self, state):
        job = Job("j1", "running", 1.0, "v0001", 7)
        assert not state.update_job(job)  # there is none
        state.add_job(job)
        ended = replace(job, state="failed", error="taken from its owner")
        assert state.update_job(ended)
        assert not state.update_job(replace(job, state="succeeded"))
        assert state.job("j1") == ended
