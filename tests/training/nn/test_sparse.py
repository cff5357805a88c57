import numpy as np
import torch

from training.nn.sparse import sparse_rows


def test_a_product_is_the_dense_one_and_repeated_columns_add_up() -> None:
    # Row 0 holds column 2 twice, row 1 is empty.
    indptr, columns = torch.tensor([0, 3, 3, 4]), torch.tensor([2, 0, 2, 1])
    matrix = sparse_rows(indptr, columns, torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64), (3, 4))
    dense = torch.tensor([[2.0, 0, 5, 0], [0, 0, 0, 0], [0, 8, 0, 0]], dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3)))
    assert torch.equal(matrix @ x, dense @ x)
