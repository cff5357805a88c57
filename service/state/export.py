"""The interaction log as JSON lines: what a retrain job reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson

from service.state.port import LoggedInteraction

CHUNK = 10_000


def write_lines(read: Callable[[int, int], list[LoggedInteraction]], path: Path, upto: int) -> int:
    """Write the log up to sequence number `upto`, one JSON object a line, in order. Returns how many lines.

    Args:
        read: `StateStore.read`.
        path: the file to write.
        upto: last sequence number that is written.
    """
    after = 0
    with path.open("wb") as file:
        while after < upto:
            part = read(after, min(CHUNK, upto - after))
            if not part:
                break
            file.writelines(orjson.dumps(asdict(it), option=orjson.OPT_APPEND_NEWLINE) for it in part)
            after = part[-1].sequence
        file.flush()
        os.fsync(file.fileno())
    return after
