"""What may enter: external ids and feature vectors, by one rule for HTTP, an import, a log and a data set."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

# The most characters of an external id: what HTTP takes by default. An array of ids is as wide as the longest of them.
LONGEST_ID = 256
# Control characters, and halves of surrogate pairs (Unicode's categories Cc and Cs).
NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# The largest number of a feature vector: squares of some thousands of them are still finite in single precision.
LARGEST = 1e15


def plain_text(value: str) -> str:
    """Refuse what can't be stored as an id: control characters and halves of surrogate pairs.

    Raises:
        ValueError: it holds one.
    """
    found = NOT_TEXT.search(value)
    if found is not None:
        raise ValueError(f"holds the control character U+{ord(found.group()):04X}")
    return value


def external_id(value: object) -> str:
    """An external id as data give it: a text of 1 to `LONGEST_ID` plain characters, or a whole number.

    Raises:
        ValueError: it is none; the text goes on after the value ("is empty").
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("is neither a text nor a whole number")
    if not value:
        raise ValueError("is empty")
    if len(value) > LONGEST_ID:
        raise ValueError(f"has {len(value):,} characters; at most {LONGEST_ID} are allowed")
    return plain_text(value)


def is_vector(value: object) -> bool:
    """Whether a record's value is a feature vector: numbers up to `LARGEST`, at least one."""
    return isinstance(value, list) and len(value) > 0 and all(_is_number(v) and _is_small(v) for v in value)


def check_vectors(content: Mapping[str, Any]) -> None:
    """Refuse an item's record with a feature vector that holds NaN or a number beyond `LARGEST`.

    Features of another form say nothing, and are left out where the record is read.

    Raises:
        ValueError: it holds one.
    """
    features = content.get("features")
    for modality, values in features.items() if isinstance(features, Mapping) else ():
        for value in values if isinstance(values, list) else ():
            if _is_number(value) and not _is_small(value):
                raise ValueError(
                    f"the vector {reprlib.repr(modality)} holds {reprlib.repr(value)}; -{LARGEST:g} to {LARGEST:g} "
                    "are allowed"
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_small(value: Any) -> bool:
    return bool(-LARGEST <= value <= LARGEST)  # false for NaN, and exact for a whole number of any length
