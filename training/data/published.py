"""The layout of the published KDiffE and DiffMM data: pickled scipy matrices, `.npy` features, a `kg.txt`.

    trnMat.pkl  valMat.pkl  tstMat.pkl      users × items; valid and test may be missing
    image_feat.npy  audio_feat.npy  text_feat.npy      rows in the order of the items; each may be missing
    kg.txt      lines "head relation tail" of numbers; heads below the number of items are items

External ids are the matrix's row and column numbers as text. The `kg.txt` of the published files is degenerate: every
item's tails are the relation numbers themselves, which says nothing about the item. Such a graph is left out, with a
note; a graph whose tails differ is read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.assembly import (
    Note,
    id_array,
    knowledge_graph,
    log_note,
    read_features,
    without_repeats,
)
from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.data.table import read_text, shown
from training.data.unpickling import Pairs, read_sparse_pickle
from training.errors import DataError

TRAIN_FILE = "trnMat.pkl"
MODALITY_FILES = {"visual": "image_feat.npy", "acoustic": "audio_feat.npy", "text": "text_feat.npy"}
# Users or items beyond the number of interactions that a matrix may have: each of them takes an id and a table's row,
# and a damaged shape of two numbers must not take all memory.
MOST_SILENT = 1_000_000


def read_published(directory: Path, *, note: Note = log_note) -> DataSet:
    """Read a data set in the published layout.

    Args:
        directory: where `trnMat.pkl` lies.
        note: takes a sentence about what was left out.

    Returns:
        The data set; entity and relation ids are the numbers of `kg.txt` as text.

    Raises:
        UnsafePickleError: a pickle names more than scipy's and numpy's array types.
        DataError: a file is missing, damaged or doesn't fit the others.
    """
    matrices = [read_sparse_pickle(directory / TRAIN_FILE)]
    shape = matrices[0].shape
    if max(shape) > len(matrices[0].rows) + MOST_SILENT:
        raise DataError(
            f"{directory / TRAIN_FILE}: a matrix of the shape {shape} with {len(matrices[0].rows):,} entries; at most "
            f"{MOST_SILENT:,} users or items more than entries are read. Is the shape damaged?"
        )
    for file in ("valMat.pkl", "tstMat.pkl"):
        path = directory / file
        matrix = read_sparse_pickle(path) if path.exists() else Pairs(np.zeros(0, int), np.zeros(0, int), shape)
        if matrix.shape != shape:
            raise DataError(f"{path}: the matrix is {matrix.shape}, but that of {TRAIN_FILE} is {shape}.")
        matrices.append(matrix)
    n_users, n_items = shape
    train, valid, test = without_repeats(*map(_interactions, matrices), n_items=n_items, note=note)
    data = DataSet(directory.resolve().name, _numbers(n_users), _numbers(n_items), train, valid, test)
    features = {
        modality: read_features(directory / file, n_items, f"columns (items) in {TRAIN_FILE}")
        for modality, file in MODALITY_FILES.items()
        if (directory / file).exists()
    }
    graph_file = directory / "kg.txt"
    graph = _read_graph(graph_file, n_items, note) if graph_file.exists() else None
    return replace(data, features=features, knowledge=graph)


def _interactions(matrix: Pairs) -> Interactions:
    return Interactions(matrix.rows.astype(np.int32), matrix.columns.astype(np.int32))


def _numbers(count: int) -> NDArray[np.str_]:
    return id_array([str(number) for number in range(count)])


def _read_graph(path: Path, n_items: int, note: Note) -> KnowledgeGraph | None:
    lines = read_text(path).rstrip("\n").split("\n")
    rows = [line.split() for line in lines] if lines != [""] else []
    for number, fields in enumerate(rows, 1):
        if len(fields) != 3 or not all(field.isascii() and field.isdigit() and len(field) < 19 for field in fields):
            raise DataError(
                f"{path}, line {number}: {shown(lines[number - 1])} is not 'head relation tail', 3 numbers."
            )
    if not rows:
        return None
    triplets = np.array(rows, dtype=np.int64)
    if (triplets[:, 1] == triplets[:, 2]).all():
        note(f"{path}: every tail is its relation's number, so the graph tells nothing about an item; it is left out.")
        return None
    known = triplets[:, 0] < n_items
    if not known.all():
        note(f"{path}: {int((~known).sum())} triplets are left out, their head is no item.")
    triplets = triplets[known]
    relations, entities = (list(map(str, triplets[:, column].tolist())) for column in (1, 2))
    return knowledge_graph(triplets[:, 0].astype(np.int32), relations, entities)
