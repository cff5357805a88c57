from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.live.item_metadata import ItemMetadata
from service.live.item_record import ItemRecord

CONTENT = st.fixed_dictionaries(
    {
        "categories": st.lists(st.sampled_from("abcd"), max_size=4),
        "attributes": st.dictionaries(st.sampled_from(["price", "year"]), st.integers(-3, 3)),
    }
)


@given(st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), CONTENT)), max_size=30))
def test_the_columns_say_what_the_last_records_say(changes):
    metadata, records, withdrawn = ItemMetadata(), {}, set()
    for row, content in changes:
        if content is None:
            metadata.withdraw(row)
            records.pop(row, None)
            withdrawn.add(row)
        else:
            metadata.put(row, ItemRecord.of(content))
            records[row] = content
            withdrawn.discard(row)
    assert metadata.changes == len(changes)
    assert metadata.withdrawn.tolist() == sorted(withdrawn)
    assert [row for row in range(7) if metadata.is_withdrawn(row)] == sorted(withdrawn)
    for category in "abcd":
        expected = sorted(row for row, content in records.items() if category in content["categories"])
        assert sorted(metadata.rows_in(category).tolist()) == expected
        assert metadata.counts().get(category, 0) == len(expected)
    for name in ("price", "year"):
        rows, values = metadata.numbers(name)
        found = dict(zip(rows.tolist(), values.tolist(), strict=True))
        expected = {row: c["attributes"][name] for row, c in records.items() if name in c["attributes"]}
        assert found == expected


def test_what_was_read_before_stays_as_it_was():
    metadata = ItemMetadata()
    for row in range(40):
        metadata.put(row, ItemRecord(categories=("a",), attributes={"price": float(row)}))
    rows, (_, values), withdrawn = metadata.rows_in("a"), metadata.numbers("price"), metadata.withdrawn
    for row in range(30):
        metadata.withdraw(row)
    metadata.put(99, ItemRecord(categories=("a",), attributes={"price": -1.0}))
    assert rows.tolist() == list(range(40))
    assert values.tolist() == [float(row) for row in range(40)]
    assert withdrawn.tolist() == []
    assert sorted(metadata.rows_in("a").tolist()) == [*range(30, 40), 99]


def test_a_name_goes_with_its_record():
    metadata = ItemMetadata()
    metadata.put(3, ItemRecord(name="a lamp"))
    assert metadata.name(3) == "a lamp"
    metadata.put(3, ItemRecord())
    assert metadata.name(3) is None


def test_a_record_from_elsewhere_is_read_as_far_as_it_has_the_form():
    record = ItemRecord.of(
        {
            "name": 7,
            "title": "unknown fields are left alone",
            "categories": ["a", 3, "a", None, "b"],
            "attributes": {"price": 2, "cheap": True, "color": "red", "bad": float("nan"), "size": 1.5},
            "entities": [{"relation": "r", "entity": "e"}, {"relation": "r"}, "x", {"relation": "r", "entity": "e"}],
            "features": {"visual": [1, 2.5], "text": "no", "empty": [], "mixed": [1, "2"]},
        }
    )
    assert record.name is None
    assert record.categories == ("a", "b")
    assert record.attributes == {"price": 2.0, "size": 1.5}
    assert record.entities == (("r", "e"),)
    assert {name: vector.tolist() for name, vector in record.features.items()} == {"visual": [1.0, 2.5]}
    assert record.features["visual"].dtype == np.float32
    empty = ItemRecord.of({"categories": "a", "attributes": [1], "entities": {}, "features": None})
    assert empty == ItemRecord()


def test_a_withdrawal_while_somebody_reads_is_not_lost(monkeypatch):
    metadata = ItemMetadata()
    metadata.withdraw(1)

    def slow(rows):
        found = sorted(rows)
        metadata.withdraw(7)  # as another thread does
        return found

    monkeypatch.setattr("service.live.item_metadata.sorted", slow, raising=False)
    assert metadata.withdrawn.tolist() in ([1], [1, 7])
    monkeypatch.undo()
    assert metadata.withdrawn.tolist() == [1, 7]
