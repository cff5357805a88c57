from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from training.data.log import Log, read_log
from training.errors import DataError


def log_of(path: Path, *lines: dict[str, object]) -> Log:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return read_log(path)


def pair(user_id: str, item_id: str | int, kind: str = "interaction") -> dict[str, object]:
    return {"kind": kind, "user_id": user_id, "item_id": item_id}


def test_pairs_come_in_the_order_of_their_first_interaction(tmp_path: Path) -> None:
    found = log_of(tmp_path / "log", {"user_id": "b", "item_id": 7}, pair("a", "x"), pair("b", "7"), pair("ü", "y"))
    assert found == Log((("b", "7"), ("a", "x"), ("ü", "y")))


def test_the_last_word_on_a_pair_counts(tmp_path: Path) -> None:
    found = log_of(
        tmp_path / "log",
        pair("a", "x"),
        pair("a", "x", "removal"),
        pair("b", "y", "removal"),
        pair("b", "y"),
        pair("c", "z", "removal"),
    )
    ended = frozenset({("a", "x"), ("b", "y"), ("c", "z")})
    assert found == Log((("b", "y"),), frozenset({("a", "x"), ("c", "z")}), ended=ended)


def test_a_log_is_whole_where_it_has_the_first_entry(tmp_path: Path) -> None:
    entries = [{"sequence": number, **pair("a", f"x{number}")} for number in (1, 2, 3)]
    assert log_of(tmp_path / "whole", *entries).is_whole
    assert not log_of(tmp_path / "compacted", *entries[1:]).is_whole
    assert not log_of(tmp_path / "by hand", pair("a", "x")).is_whole


def test_an_erasure_ends_what_came_before_it_alone(tmp_path: Path) -> None:
    erasure: dict[str, object] = {"kind": "erasure", "user_id": "a"}
    found = log_of(tmp_path / "log", pair("a", "x"), pair("b", "x"), erasure, pair("a", "y"))
    assert found == Log((("b", "x"), ("a", "y")), frozenset(), frozenset({"a"}))


def test_what_was_told_of_an_item_last_counts(tmp_path: Path) -> None:
    found = log_of(
        tmp_path / "log",
        {"kind": "item", "item_id": "x", "content": {"name": "old"}},
        {"kind": "withdrawal", "item_id": "y"},
        {"kind": "withdrawal", "item_id": "z"},
        {"kind": "item", "item_id": "y", "content": {}},
        {"kind": "item", "item_id": "x", "content": {"name": "new"}},
        {"kind": "item", "item_id": "w", "content": {}},
        {"kind": "withdrawal", "item_id": "w"},
    )
    assert found == Log(records={"x": {"name": "new"}, "y": {}}, withdrawn=frozenset({"w", "z"}))


def test_users_records_and_weights_are_passed_over(tmp_path: Path) -> None:
    found = log_of(
        tmp_path / "log",
        {"kind": "user", "user_id": "x", "content": {}},
        {"kind": "type", "type": "buy", "weight": 2},
    )
    assert found == Log()


def weighed(user_id: str, item_id: str, weight: object) -> dict[str, object]:
    return {"user_id": user_id, "item_id": item_id, "type": "t", "weight": weight}


def test_a_pair_weighs_as_much_as_the_heaviest_of_its_interactions(tmp_path: Path) -> None:
    found = log_of(
        tmp_path / "log",
        weighed("a", "x", 0.5),
        weighed("a", "x", 3),
        weighed("a", "x", 1),
        weighed("b", "x", 1),
        weighed("b", "y", 0),
        pair("c", "z"),
    )
    assert found.weights == {("a", "x"): 3.0, ("b", "y"): 0.0}


def test_what_has_ended_leaves_no_weight_behind(tmp_path: Path) -> None:
    erasure: dict[str, object] = {"kind": "erasure", "user_id": "b"}
    found = log_of(
        tmp_path / "log",
        weighed("a", "x", 3),
        pair("a", "x", "removal"),
        weighed("a", "x", 2),
        weighed("b", "x", 3),
        erasure,
        pair("b", "x"),
    )
    assert found.weights == {("a", "x"): 2.0}


@pytest.mark.parametrize("weight", ["1", -1, True, None, [1]])
def test_a_weight_that_is_none_is_told(tmp_path: Path, weight: object) -> None:
    with pytest.raises(DataError, match="line 1"):
        log_of(tmp_path / "log", weighed("a", "x", weight))


@pytest.mark.parametrize(
    "line",
    [
        '{"user_id": "a"}',
        "[1]",
        "{",
        '{"user_id": null, "item_id": "x"}',
        '{"kind": "party"}',
        '{"kind": "erasure"}',
        '{"kind": "item", "item_id": "x"}',
        '{"kind": ["item"]}',
        "[" * 100_000,
        '{"user_id": "", "item_id": "x"}',
        '{"user_id": true, "item_id": "x"}',
        '{"user_id": "u\\u0000", "item_id": "x"}',
        '{"user_id": "\\ud800", "item_id": "x"}',
        '{"kind": "item", "item_id": "x", "content": {"name": "\\ud800"}}',
        '{"user_id": "' + "u" * 257 + '", "item_id": "x"}',
        '{"user_id": ' + "9" * 5000 + ', "item_id": "x"}',
        '{"user_id": "a", "item_id": "x", "weight": 1' + "0" * 400 + "}",
        '{"kind": "item", "item_id": "x", "content": {"features": {"v": [1.1e15]}}}',
        '{"kind": "item", "item_id": "x", "content": {"features": {"v": [1e400]}}}',
        '{"kind": "item", "item_id": "x", "content": {"features": {"v": [1' + "0" * 400 + "]}}}",
    ],
)
def test_a_line_that_is_none_of_it_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log"
    path.write_text(json.dumps(pair("a", "x")) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 3") as caught:
        read_log(path)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_what_is_wrong_with_an_id_or_a_vector_is_told(tmp_path: Path) -> None:
    for line, message in (
        (pair("a", "x\n"), "the item_id holds the control character U\\+000A"),
        ({"user_id": "a"}, "the item_id is missing"),
        ({"kind": "item", "item_id": "x", "content": {"features": {"v": [1e16]}}}, "the vector 'v' holds 1e\\+16"),
    ):
        with pytest.raises(DataError, match=f"line 1: .*{message}"):
            log_of(tmp_path / "log", line)


def test_an_escaped_character_of_two_halves_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"user_id": "\\ud83c\\udfac", "item_id": "x"}\n', encoding="utf-8")
    assert read_log(tmp_path / "log").added == (("🎬", "x"),)


def test_ten_thousand_erasures_take_no_longer_than_two_seconds(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [pair(f"u{n}", "x") for n in range(10_000)]
    lines += [{"kind": "erasure", "user_id": f"u{n}"} for n in range(9_999)]
    start = time.perf_counter()
    found = log_of(tmp_path / "log", *lines)
    assert time.perf_counter() - start < 2  # some 0.2 s where it was measured; some 5 s where each went over all pairs
    assert found.added == (("u9999", "x"),)


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_log(tmp_path / "none")
