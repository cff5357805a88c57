import time

import numpy as np
import pytest

from training.data.table import first_appearance, read_csv, read_table, rows_of
from training.errors import DataError


def written(tmp_path, content):
    path = tmp_path / "a.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_come_out_by_name(tmp_path):
    table = read_table(written(tmp_path, "user\titem\nu1\ti1\nu2\ti2\n"))
    assert list(table.ids("user")) == ["u1", "u2"]
    assert list(table.ids("item")) == ["i1", "i2"]
    assert len(table) == 2


def test_a_header_alone_is_a_table_without_rows(tmp_path):
    table = read_table(written(tmp_path, "user\titem\n"))
    assert len(table) == 0
    assert table.numbers("user").shape == (0,)
    assert len(read_csv(written(tmp_path, "user,item\n"))) == 0


@pytest.mark.parametrize(
    "content", ["user\titem\r\nu1\ti1\r\n", "\ufeffuser\titem\nu1\ti1", "user\titem\nu1\ti1\n\n\n"]
)
def test_windows_line_ends_byte_order_marks_and_blank_ends_do_not_show(tmp_path, content):
    table = read_table(written(tmp_path, content))
    assert list(table.columns) == ["user", "item"]
    assert list(table.ids("item")) == ["i1"]


def test_quotes_and_unusual_line_separators_are_literal(tmp_path):
    table = read_table(written(tmp_path, 'item\tname\n1\t"Alien\n2\tone\u2028two\x0bthree\n'))
    assert list(table.text("name")) == ['"Alien', "one\u2028two\x0bthree"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("a\ta\nx\ty\n", "line 1: the header names the column 'a' twice"),
        ("a\t\nx\ty\n", "line 1: a header field is empty"),
        ("a\tb\n1\t2\n3\n", "line 3: too few fields, 1 where the header names 2"),
        ("a\tb\n1\t2\n\n3\t4\n", "line 3: too few fields, 1 where the header names 2"),
        ("a\tb\n1\t2\t3\n4\n", "line 2: too many fields, 3 where the header names 2"),
        (b"a\tb\n1\t2\n3\t\xff\n", "line 3: the byte 0xff is not UTF-8"),
        (b"a\tb\n1\t2\n3\t\x00\n", "line 3: a zero byte"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tsv: can't be read"):
        read_table(tmp_path / "gone.tsv")
    with pytest.raises(DataError, match="no column 'item'; the header names user, time"):
        read_table(written(tmp_path, "user\ttime\nu\t1\n")).ids("item")


def test_an_empty_id_is_named_with_its_line(tmp_path):
    with pytest.raises(DataError, match="line 3: the user is empty"):
        read_table(written(tmp_path, "user\titem\nu\ti\n\ti\n")).ids("user")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("u\x01", r"'u\\x01' holds the control character U\+0001"),
        ("\u0085", r"U\+0085"),
        ("x" * 257, r"'x{60}…' has 257 characters; at most 256"),
    ],
)
@pytest.mark.parametrize("reader", [read_table, read_csv])
def test_an_id_that_the_service_refuses_is_named_with_its_line(tmp_path, reader, value, message):
    table = reader(written(tmp_path, f"user\nu\n{value}\n"))
    with pytest.raises(DataError, match=f"line 3: the user .*{message}.* the service takes no such id"):
        table.ids("user")
    assert list(reader(written(tmp_path, f"user\n{'x' * 256}\n")).ids("user")) == ["x" * 256]


@pytest.mark.parametrize(
    ("value", "message"),
    [("soon", "'soon' is not a number"), ("", "'' is not a number"), ("nan", "not a finite"), ("-inf", "not a finite")],
)
def test_a_value_that_is_no_finite_number_is_named_with_its_line(tmp_path, value, message):
    table = read_table(written(tmp_path, f"user\ttime\nu\t1.5\nu\t{value}\nu\tx\n"))
    with pytest.raises(DataError, match="line 3: the time ") as caught:
        table.numbers("time")
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["-1", "1.0", "x", "", "1_0", "²", "9" * 19])
def test_a_row_number_is_plain_digits(tmp_path, value):
    table = read_table(written(tmp_path, f"user\tother\n0\t\n{value}\t\n"))
    with pytest.raises(DataError, match=r"line 3: the user .* is not a row number"):
        table.integers("user")


def test_a_long_bad_value_is_cut(tmp_path):
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path, f"time\n{'x' * 5000}\n")).numbers("time")
    assert len(str(caught.value)) < 300


def test_times_are_seconds_or_dates_with_utc_where_no_offset_is_named(tmp_path):
    # 2024-01-01 is 54 years after 1970, 13 of them leap years: (54 · 365 + 13) days.
    day = (54 * 365 + 13) * 86_400
    table = read_csv(
        written(tmp_path, "time\n2024-01-01\n2024-01-01T00:00:01Z\n2024-01-01 02:00:00+02:00\n2024-01-01T00:00:00.5\n")
    )
    assert table.times("time").tolist() == [day, day + 1, day, day + 0.5]
    assert read_csv(written(tmp_path, "time\n1.5\n2\n")).times("time").tolist() == [1.5, 2.0]


@pytest.mark.parametrize("content", ["time\n2024-01-01\nyesterday\n", "time\n2024-01-01\n17\n"])
def test_a_column_of_dates_holds_nothing_else(tmp_path, content):
    with pytest.raises(DataError, match=r"line 3: the time .* is neither"):
        read_csv(written(tmp_path, content)).times("time")


def test_csv_fields_in_quotes_may_hold_commas_and_line_ends(tmp_path):
    table = read_csv(written(tmp_path, 'item,name\n1,"One, ""two""\nthree"\n\n2,four\n'))
    assert list(table.text("name")) == ['One, "two"\nthree', "four"]


@pytest.mark.parametrize("content", ["a, b\nu1, i1\nu2 ,\ti2\n", 'a, "b"\n u1, "i1"\nu2 ,i2\n'])
def test_blanks_around_a_csv_value_are_no_part_of_it(tmp_path, content):
    table = read_csv(written(tmp_path, content))
    assert {name: list(values) for name, values in table.columns.items()} == {"a": ["u1", "u2"], "b": ["i1", "i2"]}


def test_a_quote_after_a_blank_protects_commas(tmp_path):
    assert list(read_csv(written(tmp_path, 'a,b\n1, "one, two"\n')).text("b")) == ["one, two"]


def test_blanks_in_other_tables_are_literal(tmp_path):
    assert list(read_table(written(tmp_path, "a\tb\n u \ti\n")).text("a")) == [" u "]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("a,b\n1,2\n3\n", "line 3: too few fields, 1 where the header names 2"),
        ('a,b\n1,"x\ny"\n3,4,5\n', "line 4: too many fields, 3 where the header names 2"),
        ('a,b\n1,"x\n', "unexpected end of data"),
    ],
)
def test_damaged_csv_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        read_csv(written(tmp_path, content))
    assert message in str(caught.value)


def test_ids_are_numbered_by_first_appearance():
    index = first_appearance(["b", "a", "b"], ["c", "a"], first=["z"])
    assert index == {"z": 0, "b": 1, "a": 2, "c": 3}
    np.testing.assert_array_equal(rows_of(["a", "z"], index), [2, 0])


def test_two_hundred_thousand_lines_take_no_longer_than_two_seconds(tmp_path):
    path = written(
        tmp_path, "user\titem\ttime\n" + "".join(f"user-{n % 999}\ti{n % 777}\t{n}\n" for n in range(200_000))
    )
    start = time.perf_counter()
    table = read_table(path)
    table.ids("user"), table.ids("item"), table.numbers("time")
    assert time.perf_counter() - start < 2  # some 0.1 s where it was measured; a Python loop over fields is slower


@pytest.mark.parametrize(
    "content", ["\na,b\n1,2\n", "a,b\n\n1,2\n", "a,b\n1,2\n\n\n", "a,b\r\n1,2\r\n", 'a,"b"\n1,"2"']
)
def test_blank_lines_and_quotes_do_not_change_a_csv_table(tmp_path, content):
    table = read_csv(written(tmp_path, content))
    assert {name: list(values) for name, values in table.columns.items()} == {"a": ["1"], "b": ["2"]}
