from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.worlds import Recorder, checkerboard, small
from training.errors import ConfigurationError
from training.progress import Bars, Everyone, ProgressFile
from training.trained import train_kdiffe


def content(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_file_says_how_much_of_the_whole_work_is_done(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = ProgressFile(path, interval=0.0)
    progress.phase("reading", 2, 0.2)
    assert content(path) == {"progress": 0.0, "phase": "reading"}
    progress.advance()
    assert content(path) == {"progress": 0.1, "phase": "reading"}
    progress.phase("fitting", 10, 0.8)  # the phase before counts as done, half of it or not
    assert content(path) == {"progress": 0.2, "phase": "fitting"}
    progress.advance(5, {"loss": 0.5})
    assert content(path) == {"progress": 0.6, "phase": "fitting", "loss": 0.5}
    progress.advance(50, {"loss": 0.25})  # never beyond the phase's share
    assert content(path) == {"progress": 1.0, "phase": "fitting", "loss": 0.25}


def test_a_file_that_can_t_be_written_is_told_at_once_and_later_holds_nothing_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--progress-file .*gone.*can't be written"):
        ProgressFile(tmp_path / "gone" / "p.json")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "p.json"
    progress = ProgressFile(path, interval=0.0)
    shutil.rmtree(path.parent)
    progress.phase("fitting", 10, 1.0)
    path.parent.mkdir()
    progress.advance(5)
    assert content(path) == {"progress": 0.5, "phase": "fitting"}


def test_it_is_not_written_more_often_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = ProgressFile(path, interval=3600.0)
    progress.phase("fitting", 10, 1.0)
    progress.advance(5)
    assert content(path)["progress"] == 0.0
    progress.phase("done", 1, 0.0)  # a phase's beginning is always written
    assert content(path) == {"progress": 1.0, "phase": "done"}


def test_whoever_reads_finds_whole_json_that_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = ProgressFile(path, interval=0.0)
    progress.phase("a", 200, 0.5)
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(content(path)["progress"])

    reader = threading.Thread(target=read)
    reader.start()
    for name in ("a", "b", "c"):
        progress.phase(name, 200, 0.4)
        for _ in range(200):
            progress.advance(1, {"loss": 0.123456789})
    stop.set()
    reader.join()
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_a_whole_training_never_goes_back_and_comes_close_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    seen: list[float] = []

    class Watcher(Recorder):
        def advance(self, *arguments: object, **more: object) -> None:
            seen.append(float(str(content(path)["progress"])))

    train_kdiffe(checkerboard(8), small(), Everyone(ProgressFile(path, interval=0.0), Watcher()))
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] > 0.9


def test_everyone_is_told_everything() -> None:
    one, two = Recorder(), Recorder()
    both = Everyone(one, two)
    both.phase("a", 3, 0.5)
    both.advance(1, {"x": 1.0})
    both.note("hello")
    for recorder in (one, two):
        assert (recorder.phases, recorder.figures, recorder.notes) == (["a"], [{"x": 1.0}], ["hello"])


def test_bars_show_phases_figures_and_notes() -> None:
    out = io.StringIO()
    with Bars(Console(file=out, width=120)) as bars:
        bars.advance()  # before any phase: nothing to move
        bars.phase("fitting", 4, 1.0)
        bars.advance(2, {"loss": 0.25})
        bars.note("[not markup] a note")
        bars.phase("weight of B", 1, 0.1)  # the phase before ended early: its bar is filled
        bars.advance()
    text = out.getvalue()
    assert "fitting" in text
    assert "2/2" in text
    assert "loss 0.2500" in text
    assert "a note" in text


@pytest.mark.parametrize("total", [0, 1])
def test_a_phase_without_steps_is_no_division_by_zero(tmp_path: Path, total: int) -> None:
    progress = ProgressFile(tmp_path / "p.json", interval=0.0)
    progress.phase("empty", total, 0.5)
    progress.advance()
    assert content(tmp_path / "p.json")["progress"] == 0.5


def test_the_end_of_a_phase_is_written_however_soon_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    progress = ProgressFile(path, interval=3600.0)
    progress.phase("fitting", 2, 1.0)
    progress.advance(2)
    assert content(path)["progress"] == 1.0
