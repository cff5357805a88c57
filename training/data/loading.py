"""Loading a data set for training: read it, split it where it brings no split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.data.dataset import DataSet
from training.data.formats import read_data_set
from training.data.split import SplitSettings, split


def load_data_set(path: Path, settings: SplitSettings) -> DataSet:
    """A data set with the splits that training selects on.

    A set in one file is split by `settings`. A set that brings a test split alone gets its validation split out of
    train; its test split stays as it is.

    Args:
        path: directory or file.
        settings: how to split.

    Raises:
        DataError: the set can't be read.
    """
    data = read_data_set(path, split=settings)
    if len(data.valid) == 0 and len(data.test) > 0:
        inner = split(replace(data, test=data.valid), replace(settings, test_share=0.0))
        data = replace(inner, test=data.test)
    return data
