"""Names of processes by which others can tell whether they still run."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def this_process() -> str:
    """A name that no other process has had or will have.

    Boot, process-id namespace, process id and the time at which it started: an id alone is given again.
    """
    return f"{_here()}/{os.getpid()}/{_started(os.getpid())}"


def runs(owner: str) -> bool | None:
    """Whether a process still runs; None where that can't be told from here."""
    here, _, rest = owner.rpartition("/")[0].rpartition("/")
    started = owner.rpartition("/")[2]
    if not started or here != _here() or not rest.isdigit():
        return None
    return _started(int(rest)) == started


def _here() -> str:
    """This machine since its start, and this container."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(PROC / 'self/ns/pid').readlink().name}"
    except OSError:
        return "unknown"


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty where it does not run."""
    try:
        # After the name, which may hold anything: state is field 3, the time of the start field 22 (proc(5)).
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
