import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from training.data.published import read_published
from training.errors import DataError, UnsafePickleError


def layout(directory, **matrices):
    directory.mkdir(exist_ok=True)
    for name, matrix in matrices.items():
        (directory / f"{name}.pkl").write_bytes(pickle.dumps(sp.coo_matrix(np.array(matrix, float))))
    return directory


def pairs(data, split):
    return list(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


def test_matrices_and_features_become_a_data_set(tmp_path):
    directory = layout(
        tmp_path / "toy",
        trnMat=[[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        valMat=[[0, 0, 1], [1, 0, 0], [0, 0, 0]],
        tstMat=[[0, 0, 0], [0, 0, 0], [1, 0, 0]],
    )
    np.save(directory / "audio_feat.npy", np.arange(6, dtype=np.float16).reshape(3, 2))
    data = read_published(directory)
    assert data.name == "toy"
    assert data.user_ids.tolist() == data.item_ids.tolist() == ["0", "1", "2"]
    assert pairs(data, data.train) == [("0", "1"), ("1", "0")]
    assert pairs(data, data.valid) == [("0", "2")]  # 1, 0 is in train already
    assert pairs(data, data.test) == [("2", "0")]
    assert data.features["acoustic"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert list(data.features) == ["acoustic"]


def test_valid_and_test_may_be_missing(tmp_path):
    data = read_published(layout(tmp_path / "toy", trnMat=[[1]]))
    assert (len(data.train), len(data.valid), len(data.test)) == (1, 0, 0)


def test_a_graph_whose_tails_are_the_relation_numbers_is_left_out_with_a_note(tmp_path):
    directory = layout(tmp_path / "toy", trnMat=[[1, 1]])
    (directory / "kg.txt").write_text("0 1 1\n0 2 2\n1 1 1\n")
    notes = []
    assert read_published(directory, note=notes.append).knowledge is None
    assert "every tail is its relation's number" in notes[0]


def test_another_graph_is_read(tmp_path):
    directory = layout(tmp_path / "toy", trnMat=[[1, 1]])
    (directory / "kg.txt").write_text("1 0 7\n0 1 8\n0 0 7\n0 0 7\n5 0 7\n")
    notes = []
    graph = read_published(directory, note=notes.append).knowledge
    facts = {
        (int(item), str(graph.relation_ids[relation]), str(graph.entity_ids[entity]))
        for item, relation, entity in zip(graph.item_rows, graph.relation_rows, graph.entity_rows, strict=True)
    }
    assert facts == {(1, "0", "7"), (0, "1", "8"), (0, "0", "7")}
    assert len(graph) == 3
    assert "1 triplets are left out, their head is no item" in notes[0]


@pytest.mark.parametrize("line", ["1 2", "1 2 3 4", "a 1 2", "0 1 -2"])
def test_a_line_that_is_no_triplet_is_named(tmp_path, line):
    directory = layout(tmp_path / "toy", trnMat=[[1, 1]])
    (directory / "kg.txt").write_text(f"0 1 5\n{line}\n")
    with pytest.raises(DataError, match=r"kg\.txt, line 2"):
        read_published(directory)


def test_matrices_of_different_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"tstMat\.pkl: the matrix is \(1, 2\), but that of trnMat\.pkl is \(1, 1\)"):
        read_published(layout(tmp_path / "toy", trnMat=[[1]], tstMat=[[1, 0]]))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    directory = layout(tmp_path / "toy", trnMat=[[1]])
    (directory / "valMat.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafePickleError, match=r"valMat\.pkl: the pickle names os\.system"):
        read_published(directory)


def test_a_shape_that_would_take_all_memory_is_refused(tmp_path):
    directory = layout(tmp_path / "toy", trnMat=[[1]])
    for shape in ((2_000_000_000, 2), (2, 2_000_000_000)):
        (directory / "trnMat.pkl").write_bytes(pickle.dumps(sp.coo_matrix(([1.0], ([0], [0])), shape=shape)))
        with pytest.raises(DataError, match=r"trnMat\.pkl: a matrix of the shape .* with 1 entries; at most 1,000,000"):
            read_published(directory)


def test_a_split_that_only_repeats_train_is_noted(tmp_path):
    notes = []
    read_published(layout(tmp_path / "toy", trnMat=[[1, 1]], valMat=[[1, 0]]), note=notes.append)
    assert "The valid split is left out" in notes[0]
