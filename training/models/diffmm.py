"""DiffMM (Jiang et al., 2024, arXiv 2406.11781): a diffusion over the users' interactions for each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from training.models.generated import GeneratedRows, Purposes
from training.models.graph import Laplacian
from training.models.recommender import Recommender
from training.models.view import View, embedding_table, readout_weights
from training.nn.contrast import info_nce
from training.nn.projection import FeatureProjections, softmax_mix
from training.nn.propagation import propagate
from training.nn.sparse import on_device
from training.row_diffusion import DiffusionLosses, SparseRows
from training.settings import ContrastSettings, DiffusionSettings, ModelSettings, MultimodalSettings

# Anchors whose similarities to a batch's nodes are made at once.
_CHUNK = 1024


class GeneratedInteractions(GeneratedRows):
    """A modality's users' rows over the items, and the bipartite graph Â_m of what was kept last.

    Attributes:
        matrix: (N, N) sparse, symmetrically normalised; None before the first epoch.
    """

    matrix: Tensor | None

    def __init__(
        self,
        rows: SparseRows,
        history: Tensor,
        width: int,
        settings: DiffusionSettings,
        seed: int,
        place: int,
        device: torch.device,
    ) -> None:
        """Prepare the denoiser.

        Args:
            rows: (I, J) x_0.
            history: the same as a sparse matrix on the device, which sums a user's items' embeddings.
            width: d.
            settings: the diffusion's. The denoiser itself has no guide, as DiffMM's hasn't: `guided` is whether its
                loss has the modality-aware signal.
            seed: of the denoiser's weights and of every draw.
            place: the modality's place, which keeps its draws apart from others'.
            device: where it is computed.
        """
        first = 16 + 2 * place
        purposes = Purposes(train=first, reverse=first + 1, thinning=first)
        # Not the seed of the embeddings: equal draws would tie the denoiser to them.
        super().__init__(rows, width, replace(settings, guided=False), seed, seed + 1 + place, purposes, device)
        self.history, self.has_signal = history, settings.guided
        self.matrix = None

    def begin_epoch(self, number: int, item_embeddings: Tensor, features: Tensor) -> DiffusionLosses | None:
        """Train the denoiser with the modality-aware signal, then make Â_m anew where it is due.

        The signal draws x̂_0 mapped through the modality's projected features to x_0 mapped through the items'
        embeddings (DiffMM's MSI loss, with the cosine in place of the squared distance).

        Args:
            number: the epoch, from 1.
            item_embeddings: (J, d).
            features: (J, d) the modality's projected features.

        Returns:
            The denoiser's mean losses, None for a random thinning.
        """
        target = self.history @ item_embeddings if self.has_signal and self.diffusion is not None else None
        return self.make(number, None, features, target)

    def keep(self, kept: SparseRows) -> None:
        """Make the graph of the kept pairs."""
        super().keep(kept)
        self.matrix = _bipartite(kept.rows, kept.columns, kept.n_rows, kept.n_columns, self.device)


class ModalView(View):
    """X = Σ_m w_m ( L̄[U; F_m] + L̄[(L̄[U; F_m])_U; E] + λ Â_m[U; E] ): modality-aware aggregation, w learned.

    F_m are the directions of the projected features. The readout adds X once more, with `residual_weight` (DiffMM adds
    its direction; the sum is linear and keeps the serving form). X of a new user is zero, as everywhere.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        features: Mapping[str, NDArray[np.floating]],
        model: ModelSettings,
        settings: MultimodalSettings,
        laplacian: Laplacian,
        generator: torch.Generator,
    ) -> None:
        """Draw the parameters on the CPU.

        Args:
            n_users: I.
            n_items: J.
            features: modality → (J, w_m), at least one.
            model: width, layers, readout.
            settings: the weights of the parts.
            laplacian: L̄.
            generator: draws the parameters.
        """
        super().__init__()
        self.name = "modal"
        alpha = readout_weights(model)
        self.alpha = [alpha[0] + settings.residual_weight, *alpha[1:]]
        self.user_embeddings = embedding_table(n_users, model.width, model.init_scale, generator)
        self.item_embeddings = embedding_table(n_items, model.width, model.init_scale, generator)
        self.projections = FeatureProjections(features, model.width, model.width**-0.5, generator)
        self.mix = nn.Parameter(torch.zeros(len(features)))
        self.generated_weight = settings.generated_weight
        self.graphs: list[Tensor | None] = [None] * len(features)
        self._laplacian = laplacian
        self._n_users = n_users

    def features(self) -> list[Tensor]:
        """The directions of the projected features, (J, d) each."""
        return [functional.normalize(projected, dim=1) for projected in self.projections()]

    def base(self) -> Tensor:
        """X: (I + J, d)."""
        own = torch.cat([self.user_embeddings, self.item_embeddings])
        parts = []
        for features, graph in zip(self.features(), self.graphs, strict=True):
            of_features = self._aggregate(torch.cat([self.user_embeddings, features]))
            of_items = self._aggregate(torch.cat([of_features[: self._n_users], self.item_embeddings]))
            part = of_features + of_items
            if graph is not None:
                part = part + self.generated_weight * (graph @ own)
            parts.append(part)
        return softmax_mix(parts, self.mix)

    def contrasted(self) -> list[Tensor]:
        """Each modality's own view: Σ_l L̄^l Â_m [U; F_m], (I + J, d)."""
        found = []
        for features, graph in zip(self.features(), self.graphs, strict=True):
            assert graph is not None, "begin_epoch makes the graphs"  # noqa: S101
            base = graph @ torch.cat([self.user_embeddings, features])
            found.append(propagate(self._laplacian.matrix, base, self.alpha, self._laplacian.self_weight))
        return found

    def penalised(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Sequence[Tensor]:
        """The users' and the items' own rows."""
        return (
            self.user_embeddings.index_select(0, users),
            self.item_embeddings.index_select(0, positives),
            self.item_embeddings.index_select(0, negatives),
        )

    def _aggregate(self, embeddings: Tensor) -> Tensor:
        return propagate(self._laplacian.matrix, embeddings, [0.0, 1.0], self._laplacian.self_weight)


class DiffMM(Recommender):
    """The modal view, a generated graph for each modality, and the contrast across modalities."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        laplacian: Laplacian,
        view: ModalView,
        generated: Sequence[GeneratedInteractions],
        contrast: ContrastSettings,
    ) -> None:
        super().__init__(n_users, n_items, laplacian, [view])
        self.contrast, self.graphs = contrast, list(generated)

    @property
    def modal(self) -> ModalView:
        """The one view."""
        view = self.views["modal"]
        assert isinstance(view, ModalView)  # noqa: S101
        return view

    def begin_epoch(self, number: int) -> Mapping[str, float]:
        """Train each modality's denoiser and make its graph anew; the losses are means over the modalities."""
        view = self.modal
        with torch.no_grad():
            features, items = view.features(), view.item_embeddings.detach()
        losses = []
        for row, graph in enumerate(self.graphs):
            losses.append(graph.begin_epoch(number, items, features[row]))
            view.graphs[row] = graph.matrix
        trained = [found for found in losses if found is not None]
        if not trained:
            return {}
        return {
            "diffusion": sum(found.elbo for found in trained) / len(trained),
            "guidance": sum(found.guidance for found in trained) / len(trained),
        }

    @property
    def has_own_loss(self) -> bool:
        """Whether there is a contrast."""
        return self.contrast.weight > 0

    def own_loss(self, view_embeddings: Sequence[Tensor], users: Tensor, items: Tensor) -> Tensor:
        """InfoNCE between modalities' views, or between each and the main one; users and items, in the batch."""
        of_modalities = self.modal.contrasted()
        if self.contrast.between == "main" or len(of_modalities) == 1:
            pairs = [(view_embeddings[0], other) for other in of_modalities]
        else:
            pairs = list(combinations(of_modalities, 2))
        total = torch.zeros((), device=users.device)
        for rows in (users, items + self.n_users):
            for a, b in pairs:
                chosen = (a.index_select(0, rows), b.index_select(0, rows))
                total = total + info_nce(*chosen, self.contrast.temperature, _CHUNK) / len(pairs)
        return self.contrast.weight * total

    def generated(self) -> dict[str, Tensor]:
        """Denoisers, optimisers and graphs, by the modality's place."""
        return {
            f"{row}.{name}": value for row, graph in enumerate(self.graphs) for name, value in graph.tensors().items()
        }

    def generated_for_base(self) -> dict[str, Tensor]:
        """The graphs: X is made from them."""
        return {f"{row}.{name}": value for row, graph in enumerate(self.graphs) for name, value in graph.kept().items()}

    def restore_generated(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        for row, graph in enumerate(self.graphs):
            prefix = f"{row}."
            graph.restore({n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)})
            self.modal.graphs[row] = graph.matrix


def make_diffmm(
    history: sparse.csr_array,
    features: Mapping[str, NDArray[np.floating]],
    laplacian: Laplacian,
    model: ModelSettings,
    multimodal: MultimodalSettings,
    diffusion: DiffusionSettings,
    contrast: ContrastSettings,
    seed: int,
    device: torch.device,
) -> DiffMM:
    """DiffMM on a device, before training.

    Args:
        history: (I, J) Y.
        features: modality → (J, w_m), at least one.
        laplacian: L̄.
        model: width, layers, readout.
        multimodal: the weights of the parts.
        diffusion: one for each modality.
        contrast: θ1, τ, and between what.
        seed: of every draw.
        device: where it lives.
    """
    n_users, n_items = history.shape
    generator = torch.Generator().manual_seed(seed)
    view = ModalView(n_users, n_items, features, model, multimodal, laplacian, generator)
    pairs = history.tocoo()
    rows = SparseRows.from_pairs(pairs.row, pairs.col, n_users, n_items)
    ones = np.ones(len(rows), np.float32)
    matrix = on_device(sparse.csr_array((ones, rows.columns, rows.indptr), shape=history.shape), device)
    graphs = [
        GeneratedInteractions(rows, matrix, model.width, diffusion, seed, row, device) for row in range(len(features))
    ]
    return DiffMM(n_users, n_items, laplacian, view, graphs, contrast)


def _bipartite(
    user_rows: NDArray[np.int64], item_rows: NDArray[np.int64], n_users: int, n_items: int, device: torch.device
) -> Tensor:
    """(N, N) sparse D^-½ A D^-½ of some pairs."""
    n_nodes = n_users + n_items
    ends = np.concatenate([item_rows + n_users, user_rows])
    starts = np.concatenate([user_rows, item_rows + n_users])
    adjacency = sparse.csr_array((np.ones(len(starts), np.float32), (starts, ends)), shape=(n_nodes, n_nodes))
    sizes = np.diff(adjacency.indptr)
    scale = np.zeros(n_nodes, np.float32)
    scale[sizes > 0] = sizes[sizes > 0] ** np.float32(-0.5)
    adjacency.data = np.repeat(scale, sizes) * scale[adjacency.indices]
    return on_device(adjacency, device)
