from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from tests.training.worlds import checkerboard, clips, valid_split
from training.evaluation import Split, evaluate, interaction_matrix, scores_of
from training.item_item import BesideScores, BesideTable, benches, ndcg_beside


def constant(scores: NDArray[np.float32]):  # type: ignore[no-untyped-def]
    return lambda users: scores[users].copy()


def board() -> tuple[sparse.csr_array, Split]:
    data = checkerboard(16)
    return interaction_matrix(data.train, 16, 16), Split.of(data.valid, data.train, 16, 16)


def own_group() -> sparse.csr_array:
    rows = np.arange(16)
    return sparse.csr_array(((rows[:, None] % 2 == rows[None] % 2) & (rows[:, None] != rows[None])).astype(np.float32))


def test_the_bench_finds_the_weight_at_which_a_table_helps() -> None:
    matrix, split = board()
    # The scores put the other group first by a margin that only a large weight overcomes.
    rows = np.arange(16)
    wrong = 30.0 * (rows[:, None] % 2 != rows[None] % 2).astype(np.float32)
    bench = BesideScores(constant(wrong), matrix, split)
    without = evaluate(constant(wrong), split)["ndcg@20"]
    assert bench.quality(sparse.csr_array((16, 16), dtype=np.float32)) == pytest.approx(without)
    assert without < 1
    assert bench.quality(own_group()) == pytest.approx(1.0)  # the one item of the own group that is left


def test_the_bench_finds_the_share_at_which_content_helps() -> None:
    matrix, split = board()
    bench = BesideScores(constant(np.zeros((16, 16), np.float32)), matrix, split)
    shifted = sparse.csr_array(np.roll(own_group().toarray(), 1, axis=1))  # the other group
    quality, share = bench.best_share(shifted, own_group())
    assert quality == pytest.approx(1.0)
    assert share > 1
    assert bench.best_share(own_group(), sparse.csr_array((16, 16), dtype=np.float32))[1] == 0.0


def test_the_bench_looks_at_a_sample_of_the_users_and_keeps_no_more_scores_than_its_memory_bears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, split = board()
    asked: list[int] = []

    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        asked.extend(users.tolist())
        return np.zeros((len(users), 16), np.float32)

    monkeypatch.setattr(Split, "sample", lambda self: replace(self, users=self.users[::4]))
    monkeypatch.setattr(benches, "CHUNK", 3)
    found = []
    for kept, of_spread, passes in ((16 * 4, [], 1), (16 * 4 - 1, [0, 4, 8], 2 + 2)):
        monkeypatch.setattr(benches, "_KEPT_SCORES", kept)
        asked.clear()
        bench = BesideScores(scores, matrix, split)
        found.append(
            [bench.quality(own_group()), bench.quality(own_group()), *bench.best_share(own_group(), own_group())]
        )
        assert asked == of_spread + passes * [0, 4, 8, 12]
    assert found[0] == found[1]


def test_a_bench_without_users_says_zero() -> None:
    matrix, split = board()
    nobody = replace(split, users=split.users[:0])
    assert BesideScores(constant(np.zeros((16, 16), np.float32)), matrix, nobody).quality(own_group()) == 0.0


def test_scores_are_judged_beside_a_table_at_its_best_weight_and_always_alike() -> None:
    matrix, split = board()
    rows = np.arange(16)
    own = 0.1 * (rows[:, None] % 2 == rows[None] % 2).astype(np.float32)
    wrong = 30.0 - 300.0 * own
    bench = BesideTable(own_group(), matrix, split)
    judged = [bench.quality(constant(scores)) for scores in (wrong, own, wrong, own)]
    assert evaluate(constant(wrong), split)["ndcg@20"] < 1
    assert judged == [pytest.approx(1.0)] * 4
    misleading = BesideTable(sparse.csr_array(np.roll(own_group().toarray(), 1, axis=1)), matrix, split)
    assert misleading.quality(constant(own)) == pytest.approx(1.0)  # at the weight 0
    assert misleading.quality(constant(wrong)) < 1
    nobody = replace(split, users=split.users[:0])
    assert BesideTable(own_group(), matrix, nobody).quality(constant(own)) == 0.0


@pytest.mark.parametrize("chunk", [3, 100])
def test_all_users_at_several_weights_are_judged_as_an_evaluation_of_each(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "CHUNK", chunk)
    data = clips(cold=True)  # some users are strangers, whose list is the popular items
    n_users, n_items = data.n_users, data.n_items
    history = interaction_matrix(data.train, n_users, n_items)
    split = valid_split(data)
    assert split.strangers[split.users].any()
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((n_users + n_items, 4)).astype(np.float32)
    table = sparse.csr_array(np.where(rng.random((n_items, n_items)) < 0.3, 1.0, 0.0).astype(np.float32))
    weights = [0.0, 0.5, 2.0]
    found = ndcg_beside(scores_of(embeddings, n_users, history, None), history, table, split, weights)
    expected = [evaluate(scores_of(embeddings, n_users, history, table * w), split)["ndcg@20"] for w in weights]
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(set(found)) == 3
    nobody = replace(split, users=split.users[:0])
    assert ndcg_beside(scores_of(embeddings, n_users, history, None), history, table, nobody, weights) == [0.0] * 3
