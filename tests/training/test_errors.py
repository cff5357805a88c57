from __future__ import annotations

import re

from model_store.errors import KDiffEError
from training import errors


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│└├─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            if depth:
                drawn[found[2]] = path[depth - 1]
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.TrainingError)]
    assert drawn == {c.__name__: c.__base__.__name__ for c in classes if c.__base__}
    assert all(issubclass(c, KDiffEError) for c in classes)
