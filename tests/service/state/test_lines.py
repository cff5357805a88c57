from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.errors import StateError
from service.state.lines import import_lines
from service.state.memory import MemoryState


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"kind": "item", "item_id": "x", "content": {"features": {"visual": [0.0, 1e16]}}}, "the vector 'visual'"),
        ({"user_id": "u" * 257, "item_id": "x"}, "has 257 characters"),
        ({"user_id": "u", "item_id": "x\u0007"}, "the control character U"),
        ({"user_id": "u", "item_id": ""}, "is empty"),
        ({"user_id": True, "item_id": "x"}, "is neither a text nor a whole number"),
    ],
)
def test_a_line_that_http_would_refuse_ends_an_import_by_its_number(
    tmp_path: Path, line: dict[str, object], message: str
) -> None:
    path = tmp_path / "lines"
    good = {"kind": "item", "item_id": "x", "content": {"features": {"visual": [0.0, 1e15]}}}
    path.write_text("".join(json.dumps(one) + "\n" for one in (good, line)), encoding="utf-8")
    state = MemoryState()
    with pytest.raises(StateError, match=f"line 2: .*{message}"):
        import_lines(state, path, 0.0)
    assert state.last_sequence() == 0
