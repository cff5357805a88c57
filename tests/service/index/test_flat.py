from __future__ import annotations

import pytest

from service.errors import StartError
from service.index import build_index, index_builder
from service.index.exact import ExactIndex
from service.index.flat import FlatIndex, check_build, installed_builds
from tests.service.index.contract import IndexContract


class TestFlatIndex(IndexContract):
    def build(self, vectors):
        return FlatIndex(vectors)


def test_two_faiss_builds_are_refused():
    check_build(["faiss-cpu"])
    check_build([])
    with pytest.raises(StartError, match="overwrite each other"):
        check_build(["faiss-cpu", "faiss-gpu"])


def test_one_build_is_installed_here():
    assert len(installed_builds()) == 1


def test_an_index_is_built_by_name():
    import numpy as np

    assert index_builder("exact") is ExactIndex
    assert index_builder("faiss") is FlatIndex
    assert build_index("exact", np.eye(2, dtype=np.float32)).name == "exact"
