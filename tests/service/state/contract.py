"""What every state store must do; the twins' tests mix it in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st

from service.state.port import Interaction, Job, LoggedInteraction, StateStore


def interaction(user: str = "u", item: str = "i", event_id: str | None = None) -> Interaction:
    return Interaction(user, item, 1.5, "play", event_id)


class StateContract:
    def make(self, directory: Path) -> StateStore:
        raise NotImplementedError

    def test_an_empty_log_ends_at_0(self, tmp_path):
        state = self.make(tmp_path)
        assert state.last_sequence() == 0
        assert state.read(0, 10) == []
        assert len(state.state_id) == 32
        state.close()

    def test_what_was_appended_is_read_in_order(self, tmp_path):
        state = self.make(tmp_path)
        assert state.append([interaction("a", "x", "1"), interaction("ü b/c", "y")]).sequence == 2
        assert state.append([interaction("c", "z")]).sequence == 3
        assert state.read(0, 10) == [
            LoggedInteraction(1, "a", "x", 1.5, "play", "1"),
            LoggedInteraction(2, "ü b/c", "y", 1.5, "play", None),
            LoggedInteraction(3, "c", "z", 1.5, "play", None),
        ]
        assert [it.sequence for it in state.read(1, 1)] == [2]
        assert state.read(3, 10) == []
        assert state.read(0, 0) == []
        state.close()

    def test_an_event_id_counts_once_within_and_across_batches(self, tmp_path):
        state = self.make(tmp_path)
        first = state.append([interaction(event_id="a"), interaction(event_id="a"), interaction(event_id="b")])
        assert (first.accepted, first.duplicates, first.sequence) == (2, 1, 2)
        again = state.append([interaction("other", event_id="a"), interaction()])
        assert (again.accepted, again.duplicates, again.sequence) == (1, 1, 3)
        assert [it.sequence for it in state.read(0, 10)] == [1, 2, 3]
        state.close()

    def test_without_an_event_id_every_interaction_counts(self, tmp_path):
        state = self.make(tmp_path)
        assert state.append([interaction(), interaction()]).accepted == 2
        state.close()

    def test_an_empty_batch_changes_nothing(self, tmp_path):
        state = self.make(tmp_path)
        assert state.append([]).sequence == 0
        state.close()

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

    def test_many_callers_at_once_lose_nothing(self, tmp_path):
        state = self.make(tmp_path)

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
        state.close()

    def test_the_log_is_exported_as_json_lines(self, tmp_path):
        state = self.make(tmp_path)
        state.append([interaction("ü", str(n)) for n in range(5)])
        assert state.export(tmp_path / "log.jsonl", 3) == 3
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["sequence"] for line in lines] == [1, 2, 3]
        assert lines[2] == {
            "sequence": 3,
            "user_id": "ü",
            "item_id": "2",
            "timestamp": 1.5,
            "type": "play",
            "event_id": None,
        }
        assert state.export(tmp_path / "log.jsonl", 0) == 0
        state.close()

    def test_one_job_at_a_time(self, tmp_path):
        state = self.make(tmp_path)
        job = Job("j1", "queued", 1.0, "v0001", 7)
        assert state.add_job(job) == job
        assert state.add_job(replace(job, job_id="j2")) == job
        state.update_job(replace(job, state="running", progress=0.5))
        assert state.add_job(replace(job, job_id="j2")).job_id == "j1"
        state.update_job(replace(job, state="failed", error="no", finished_at=2.0))
        assert state.add_job(replace(job, job_id="j2")).job_id == "j2"
        assert [j.job_id for j in state.jobs()] == ["j2", "j1"]
        assert state.job("j1") == Job("j1", "failed", 1.0, "v0001", 7, error="no", finished_at=2.0)
        assert state.job("j3") is None
        state.close()
