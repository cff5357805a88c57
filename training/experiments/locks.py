"""Work that one process at a time may do."""

from __future__ import annotations

import fcntl

from training.errors import ConfigurationError


def claim(descriptor: int, refusal: str) -> None:
    """Lock an open file or folder for this process; the kernel lets go when it is closed, or the process dies.

    Args:
        descriptor: of the file or folder.
        refusal: what a user is told where it can't be had.

    Raises:
        ConfigurationError: another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigurationError(refusal) from None
