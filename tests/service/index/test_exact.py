from __future__ import annotations

import numpy as np

from service.index.exact import ExactIndex
from tests.service.index.contract import IndexContract


class TestExactIndex(IndexContract):
    def build(self, vectors):
        return ExactIndex(vectors)

    def test_equal_inner_products_rank_by_row(self):
        assert self.build(np.ones((5, 2), np.float32)).search(np.ones(2, np.float32), 5)[1].tolist() == [0, 1, 2, 3, 4]
