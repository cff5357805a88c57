"""What every index must do; the twins' tests mix it in."""

from __future__ import annotations

import numpy as np
import pytest

from service.index.port import VectorIndex


class IndexContract:
    def build(self, vectors: np.ndarray) -> VectorIndex:
        raise NotImplementedError

    @pytest.mark.parametrize(("n", "k"), [(1, 1), (50, 1), (50, 20), (50, 50), (5000, 3000)])
    def test_finds_the_largest_inner_products_in_order(self, n, k):
        rng = np.random.default_rng(n + k)
        vectors = rng.standard_normal((n, 7)).astype(np.float32)
        query = rng.standard_normal(7).astype(np.float32)
        inner, rows = self.build(vectors).search(query, k)
        exact = vectors.astype(np.float64) @ query
        assert inner.dtype == np.float32
        assert rows.dtype == np.int64
        assert len(set(rows.tolist())) == k
        assert (np.diff(inner) <= 0).all()
        np.testing.assert_allclose(inner, np.sort(exact)[::-1][:k], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inner, exact[rows], rtol=1e-4, atol=1e-5)

    def test_asked_for_more_than_there_is_gives_all(self):
        inner, rows = self.build(np.eye(3, dtype=np.float32)).search(np.array([3, 2, 1], np.float32), 10)
        assert inner.tolist() == [3, 2, 1]
        assert rows.tolist() == [0, 1, 2]

    def test_of_nothing_or_asked_for_nothing_gives_nothing(self):
        assert len(self.build(np.zeros((0, 4), np.float32)).search(np.ones(4, np.float32), 3)[1]) == 0
        assert len(self.build(np.ones((2, 4), np.float32)).search(np.ones(4, np.float32), 0)[1]) == 0

    def test_does_not_change_when_its_source_does(self):
        vectors = np.eye(2, dtype=np.float32)
        index = self.build(vectors.copy())
        vectors[:] = 0
        assert index.search(np.array([1, 0], np.float32), 1)[0].tolist() == [1]

    def test_has_a_name(self):
        assert self.build(np.eye(2, dtype=np.float32)).name
