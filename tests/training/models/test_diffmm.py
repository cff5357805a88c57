"""DiffMM: X and the contrast recomputed with dense numpy, what its graphs are made from, and what is kept of them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_store.walks import WalkSettings
from tests.training.worlds import CPU, checkerboard, matrix_of, small
from training.errors import ConfigurationError
from training.models.diffmm import DiffMM
from training.models.factory import make_model
from training.models.graph import attention_state
from training.settings import TrainingSettings

RNG = np.random.default_rng(0)
FEATURES = {name: RNG.normal(size=(8, width)).astype(np.float32) for name, width in (("a", 3), ("b", 5), ("c", 2))}
DATA = replace(checkerboard(8), features=FEATURES)
ROWS = torch.arange(8)


def settings_of(**more: object) -> TrainingSettings:
    sections: dict[str, dict[str, object]] = {
        "model": {"kind": "diffmm", "similarity_weight": 0.0},
        "diffusion": {"hidden": 8, "step_width": 4, "n_kept": 2},
        "contrast": {"weight": 0.3, "temperature": 0.5},
    }
    for section, values in more.items():
        sections[section] = {**sections.get(section, {}), **values}  # type: ignore[dict-item]
    return small(**sections)


def model_of(settings: TrainingSettings, modalities: int = 3) -> DiffMM:
    data = replace(DATA, features=dict(list(FEATURES.items())[:modalities]))
    state = attention_state(data, data.train, WalkSettings(2, 5, 0.15, 0), 1)
    made = make_model(data, settings, state, None, CPU)
    assert isinstance(made, DiffMM)
    return made


def numpy_of(tensor: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().numpy(), np.float64)


def normalised(links: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.block([[np.zeros((8, 8)), links], [links.T, np.zeros((8, 8))]])
    scale = np.array([degree**-0.5 if degree else 0.0 for degree in whole.sum(1)])
    return np.asarray(scale[:, None] * whole * scale)


def kept_of(model: DiffMM) -> list[NDArray[np.float64]]:
    """Each modality's generated pairs as a dense matrix, from what a checkpoint has."""
    found = []
    for row in range(len(model.graphs)):
        tensors = model.generated()
        indptr, columns = (tensors[f"{row}.kept.{name}"].numpy() for name in ("indptr", "columns"))
        dense = np.zeros((8, 8))
        for user in range(8):
            dense[user, columns[indptr[user] : indptr[user + 1]]] = 1
        found.append(dense)
    return found


def test_x_is_the_modality_aware_aggregation() -> None:
    model = model_of(settings_of(multimodal={"generated_weight": 0.7}))
    model.begin_epoch(1)
    with torch.no_grad():
        model.modal.mix.copy_(torch.tensor([0.0, 1.0, -1.0]))
    view = model.modal
    links = normalised(matrix_of(DATA.train, 8, 8))
    users, items = numpy_of(view.user_embeddings), numpy_of(view.item_embeddings)
    shares = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    expected: NDArray[np.float64] = np.zeros((16, 8))
    for share, kept, projected in zip(shares, kept_of(model), view.projections(), strict=True):
        features = numpy_of(projected)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        first = links @ np.concatenate([users, features])
        second = links @ np.concatenate([first[:8], items])
        expected += share * (first + second + 0.7 * normalised(kept) @ np.concatenate([users, items]))
    np.testing.assert_allclose(numpy_of(view.base()), expected, atol=1e-5)


def test_z_has_the_serving_form_with_x_once_more() -> None:
    model = model_of(settings_of(multimodal={"residual_weight": 0.25}, model={"n_layers": 2}))
    model.begin_epoch(1)
    links, base = normalised(matrix_of(DATA.train, 8, 8)), numpy_of(model.modal.base())
    expected = (1 / 3 + 0.25) * base + links @ base / 3 + links @ links @ base / 3
    np.testing.assert_allclose(numpy_of(model.embeddings()), expected, atol=1e-5)


def info_nce(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logits = a @ b.T / 0.5
    return float(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))


@pytest.mark.parametrize(("between", "modalities"), [("modalities", 3), ("main", 3), ("modalities", 1)])
def test_the_contrast_is_between_modalities_or_with_the_main_view(between: str, modalities: int) -> None:
    model = model_of(settings_of(contrast={"between": between}), modalities)
    model.begin_epoch(1)
    view = model.modal
    links, users = normalised(matrix_of(DATA.train, 8, 8)), numpy_of(view.user_embeddings)
    alpha = view.alpha
    views = []
    for kept, features in zip(kept_of(model), view.features(), strict=True):
        base = normalised(kept) @ np.concatenate([users, numpy_of(features)])
        views.append(alpha[0] * base + alpha[1] * links @ base + alpha[2] * links @ links @ base)
    main = numpy_of(model.embeddings())
    pairs = list(combinations(views, 2)) if between == "modalities" and modalities > 1 else [(main, v) for v in views]
    of_users, of_items = [0, 3, 5], [1, 2]
    terms = [info_nce(a[of_users], b[of_users]) + info_nce(a[8:][of_items], b[8:][of_items]) for a, b in pairs]
    found = model.own_loss(model.view_embeddings(), torch.tensor(of_users), torch.tensor(of_items))
    assert found.item() == pytest.approx(0.3 * sum(terms) / len(terms), rel=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model = model_of(settings_of())
    model.begin_epoch(1)
    model.loss(ROWS, ROWS, ROWS.flip(0)[:, None], small().loss).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_without_a_weight_there_is_no_contrast_and_the_graphs_are_made_all_the_same() -> None:
    model = model_of(settings_of(contrast={"weight": 0.0}))
    model.begin_epoch(1)
    assert not model.has_own_loss
    assert all(graph is not None for graph in model.modal.graphs)


def test_the_modality_aware_signal_changes_the_denoiser_and_can_be_left_out() -> None:
    with_signal, without, again = (
        model_of(settings_of(diffusion={"guided": guided})) for guided in (True, False, False)
    )
    for model in (with_signal, without, again):
        model.begin_epoch(1)
    name = "0.denoiser.output_weight"
    assert torch.equal(without.generated()[name], again.generated()[name])
    assert not torch.equal(with_signal.generated()[name], without.generated()[name])


def test_each_modality_has_draws_of_its_own() -> None:
    model = model_of(settings_of())
    tensors = model.generated()
    assert not torch.equal(tensors["0.denoiser.input_weight"], tensors["1.denoiser.input_weight"])


@pytest.mark.parametrize("kind", ["diffusion", "random"])
def test_going_on_from_its_tensors_gives_the_same_bits(kind: str) -> None:
    straight, first, second = (model_of(settings_of(diffusion={"graph": kind})) for _ in range(3))
    for number in (1, 2, 3):
        straight.begin_epoch(number)
    for number in (1, 2):
        first.begin_epoch(number)
    second.restore_generated({name: value.clone() for name, value in first.generated().items()})
    torch.testing.assert_close(second.embeddings(), first.embeddings(), rtol=0, atol=0)
    second.begin_epoch(3)
    for name, value in straight.generated().items():
        assert torch.equal(value, second.generated()[name]), name


def test_the_graphs_alone_bring_an_earlier_x_back() -> None:
    model = model_of(settings_of(diffusion={"graph": "random", "n_kept": 1}))
    model.begin_epoch(1)
    before = model.embeddings().detach().clone()
    kept = {name: value.clone() for name, value in model.generated_for_base().items()}
    model.begin_epoch(2)
    assert not torch.equal(model.embeddings(), before)
    model.restore_generated(kept)
    torch.testing.assert_close(model.embeddings(), before, rtol=0, atol=0)


def test_a_set_without_features_is_refused_with_what_to_do() -> None:
    data = checkerboard(8)
    state = attention_state(data, data.train, WalkSettings(2, 5, 0.15, 0), 1)
    with pytest.raises(ConfigurationError, match=r"checkerboard has none: .*features/MODALITY.npy.*train kdiffe"):
        make_model(data, settings_of(), state, None, CPU)


def test_users_without_interactions_are_zero() -> None:
    data = replace(DATA, train=DATA.train.take(np.flatnonzero(DATA.train.user_rows != 2)))
    state = attention_state(data, data.train, WalkSettings(2, 5, 0.15, 0), 1)
    model = make_model(data, settings_of(), state, None, CPU)
    model.begin_epoch(1)
    z = numpy_of(model.embeddings())
    assert not z[2].any()
    assert math.isfinite(z.sum())
