from __future__ import annotations

import math

import pytest

from model_store.admission import LARGEST, LONGEST_ID, check_vectors, external_id, is_vector, plain_text


@pytest.mark.parametrize("value", ["u1", "Ольга 🎬", " ", "\xa0", "x" * LONGEST_ID])
def test_a_plain_text_is_an_id_as_it_stands(value: str) -> None:
    assert external_id(value) == plain_text(value) == value


def test_a_whole_number_is_the_id_of_its_digits() -> None:
    assert [external_id(value) for value in (7, 0, -1)] == ["7", "0", "-1"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("x" * (LONGEST_ID + 1), "has 257 characters; at most 256 are allowed"),
        (10**400, "has 401 characters"),
        ("u\0", "the control character U\\+0000"),
        ("\x1b[31m", "U\\+001B"),
        ("\x85", "U\\+0085"),
        ("\ud800", "U\\+D800"),
        (True, "is neither a text nor a whole number"),
        (1.0, "is neither"),
        (None, "is neither"),
    ],
)
def test_what_is_no_id_is_told(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        external_id(value)


def test_a_vector_is_a_list_of_numbers_that_single_precision_can_square() -> None:
    assert is_vector([0, -LARGEST, LARGEST, 0.5])
    for wrong in ([], [True], ["1"], [None], [1, 1.1e15], [math.inf], [math.nan], [10**400], (1.0,), {"a": 1}, 1.0):
        assert not is_vector(wrong)


@pytest.mark.parametrize("value", [1.1e15, -1e300, math.inf, math.nan, 10**400])
def test_a_record_whose_vector_holds_too_large_a_number_is_refused_by_modality_and_value(value: float) -> None:
    with pytest.raises(ValueError, match="the vector 'visual' holds ") as caught:
        check_vectors({"features": {"text": [1.0], "visual": [0.0, value]}})
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("content", [{}, {"features": None}, {"features": {"v": "long"}}, {"features": {"v": ["x"]}}])
def test_features_of_another_form_are_no_matter(content: dict[str, object]) -> None:
    check_vectors(content)
