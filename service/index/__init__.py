"""The vector index behind a narrow port: FAISS, and numpy's exact search as its twin."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import StartError
from service.index.exact import ExactIndex
from service.index.port import VectorIndex, Vectors

IndexBuilder = Callable[[Vectors], VectorIndex]


def index_builder(name: str) -> IndexBuilder:
    """How to build the named index (`faiss` or `exact`).

    Raises:
        StartError: FAISS is not installed, or twice.
    """
    if name == "exact":
        return ExactIndex
    try:
        from service.index.flat import FlatIndex, check_build, installed_builds
    except ImportError as error:
        raise StartError(
            f"FAISS can't be imported ({error}): pip install 'kdiffe[cpu]' (or [gpu]), or serve with --index exact."
        ) from None
    check_build(installed_builds())
    return FlatIndex


def build_index(name: str, vectors: Vectors) -> VectorIndex:
    """Build the named index over (J, width) item vectors."""
    return index_builder(name)(vectors)
