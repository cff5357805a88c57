"""Checkpoints of a fit: tensors as safetensors, the rest as JSON in the file's header. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from training.errors import CheckpointError

FILE_NAME = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit stands after an epoch.

    Attributes:
        identity: what the fit is of (settings, data fingerprint): a checkpoint of another fit is refused.
        progress: epoch, best figures, history.
        tensors: parameters, best parameters and the optimiser's moments.
    """

    identity: str
    progress: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write the checkpoint, replacing the one before it whole."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{FILE_NAME}-{os.getpid()}.new"
        header = {"identity": self.identity, "progress": json.dumps(self.progress)}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}, aside, header)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(folder / FILE_NAME)

    @classmethod
    def read(cls, folder: Path, identity: str) -> Checkpoint | None:
        """The folder's checkpoint, None where it has none.

        Raises:
            CheckpointError: it can't be read, or it is of another fit.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / FILE_NAME
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found, progress = header["identity"], json.loads(header["progress"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be read ({error!r}). Remove it and train from the start.") from None
        if found != identity:
            raise CheckpointError(
                f"{path}: belongs to another run (other settings, data or seed). Choose another --run-dir, or leave "
                "--resume away to start afresh."
            )
        return cls(found, progress, tensors)
