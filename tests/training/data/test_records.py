from __future__ import annotations

import numpy as np
import pytest

from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.data.records import with_records


def rows(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def toy() -> DataSet:
    return DataSet(
        name="toy",
        user_ids=np.array(["u"]),
        item_ids=np.array(["a", "b"]),
        train=Interactions(rows(0), rows(0)),
        knowledge=KnowledgeGraph(rows(0), rows(0), rows(0), np.array(["ada"]), np.array(["by"])),
        features={"visual": np.ones((2, 2), np.float32)},
        item_names=np.array(["A", "B"]),
    )


def test_what_a_record_says_of_its_item_is_added() -> None:
    told = {
        "name": "Beta",
        "entities": [{"relation": "by", "entity": "bob"}],
        "features": {"visual": [3, 4.5], "text": [1.0]},
    }
    data = with_records(toy(), {"b": told}, {}, 1)
    assert data.item_names is not None
    assert data.item_names.tolist() == ["A", "Beta"]
    assert data.features["visual"].tolist() == [[1, 1], [3, 4.5]]
    assert list(data.features) == ["visual"]
    assert data.knowledge is not None
    assert data.knowledge.entity_ids.tolist() == ["ada", "bob"]
    assert list(zip(data.knowledge.item_rows, data.knowledge.entity_rows, strict=True)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("value", [1e300, 10**400, 1.1e15, float("nan"), True, "3"])
def test_a_vector_that_single_precision_can_not_hold_is_left_out(value: object) -> None:
    data = with_records(
        toy(), {"b": {"features": {"visual": [value, 1.0]}}}, {"visual": np.eye(2, dtype=np.float32)}, 1
    )
    assert data.features["visual"].tolist() == [[1, 1], [1, 1]]
    assert data.knowledge is not None
    assert len(data.knowledge) == 1
