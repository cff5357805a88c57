from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.observer import Part
from training.progress import ProgressFile


def test_the_parts_of_a_work_add_up_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    whole = ProgressFile(path, interval=0.0)
    seen = []
    for share in (0.7, 0.3):
        part = Part(whole, share)
        for phase_share in (0.25, 0.75):
            part.phase("a phase", 2, phase_share)
            part.advance(2)
            seen.append(json.loads(path.read_text())["progress"])
    assert seen == pytest.approx([0.7 * 0.25, 0.7, 0.7 + 0.3 * 0.25, 1.0], abs=1e-4)
