"""Guided diffusion over sparse 0/1 rows: trained, reversed, and cut to the strongest columns of each row (D5, D6).

KDiffE's rows are items and its columns entities; DiffMM's are users and items. A batch is never E wide: see
`training.nn.denoiser`. What it costs, in multiplications and additions (`operations` computes it), with n non-empty
rows, E columns, nnz ones, h hidden units, d the width of the guide and ⌈n/batch⌉ optimiser steps an epoch:

- an epoch of training: ⌈n/batch⌉ (8 E h² + 4 E h d + 4 h³ + 28 E h) + 10 n h (h + d) + 4 nnz h.
  That is, backward passes included: two Gram matrices, the guidance's W_outᵀ V, a Cholesky factor and Adam's 14 a
  weight, for each step; a few h-wide products a row; and two sparse products.
- the reverse process from T' to x̂_0: n h² (4 T' - 2) + 2 n h d T' + 4 E h² for u, and 2 n E h for the last step's rows,
  the only place where rows are E wide.

For TikTok's 6,710 items × 1,024 entities, six ones a row, h = 128, d = 64 and batches of 256: 7 GFLOP an epoch and
5 GFLOP a reverse process from step 5. The published code multiplies dense square rows over all entities: 12 TFLOP an
epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import TrainingError
from training.nn.denoiser import Denoiser, Entries, guidance_error
from training.nn.diffusion import Diffusion
from training.settings import DiffusionSettings

# Most cells of the last step's dense rows, whatever `chunk` says: 256 MiB of them.
_MAX_CELLS = 2**26
# The least strength that a column counts with where columns are drawn.
_WEAKEST = 1e-4

_Rows = NDArray[np.int32]


@dataclass(frozen=True)
class SparseRows:
    """A sparse 0/1 matrix in compressed rows.

    Attributes:
        indptr: (n + 1,) int64, where each row begins.
        columns: (nnz,) int64, ascending in each row, none twice.
        n_columns: E.
    """

    indptr: NDArray[np.int64]
    columns: NDArray[np.int64]
    n_columns: int

    @classmethod
    def from_pairs(cls, rows: NDArray[Any], columns: NDArray[Any], n_rows: int, n_columns: int) -> SparseRows:
        """From pairs in any order; a repeated pair counts once."""
        codes = np.unique(rows.astype(np.int64) * n_columns + columns)
        sizes = np.bincount(codes // n_columns, minlength=n_rows)
        return cls(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), codes % n_columns, n_columns)

    @property
    def n_rows(self) -> int:
        """The number of rows, n."""
        return len(self.indptr) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n,) how many ones each row has."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(nnz,) the row of each one."""
        return np.repeat(np.arange(self.n_rows), self.sizes)

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class DiffusionLosses:
    """Mean losses of an epoch.

    Attributes:
        elbo: squared error weighted by the evidence lower bound, in units of what predicting nothing would cost.
        guidance: 1 - cosine of the reconstruction and the guide, mean over rows that have one; 0 without a guide.
    """

    elbo: float
    guidance: float


def start_step(settings: DiffusionSettings) -> int:
    """T', where the reverse process starts: what is set, at most T, or half of T."""
    return min(settings.start_step or max(1, settings.n_steps // 2), settings.n_steps)


def seeded_generator(seed: int, epoch: int, purpose: int, device: torch.device) -> torch.Generator:
    """A generator that is a pure function of its arguments; purposes keep draws of one epoch apart."""
    state = np.random.SeedSequence((seed, epoch, purpose)).generate_state(1, np.uint64)[0]
    # torch takes seeds below 2⁶³.
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class RowDiffusion:
    """A denoiser of sparse rows with its own optimiser.

    All that is drawn comes from the generator of each call, on the generator's own device, in a fixed order: so an
    epoch is a pure function of the weights and of the generator's seed. A CPU generator gives the same draws on every
    device; a generator on the training device saves their transfer. Neither the guide nor the columns' embeddings get
    gradients.
    """

    def __init__(
        self,
        rows: SparseRows,
        guide_width: int,
        settings: DiffusionSettings,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Prepare to train.

        Args:
            rows: (n, E) x_0.
            guide_width: d, the width of the guide; without effect where settings.guided is off.
            settings: the diffusion's.
            generator: draws the denoiser's weights, on the CPU.
            device: where all is computed.

        Raises:
            ConfigurationError: the noise schedule is impossible.
        """
        self.rows, self.settings, self.device = rows, settings, device
        self.diffusion = Diffusion.linear_in_variance(
            settings.n_steps, settings.noise_scale, settings.noise_min, settings.noise_max, device
        )
        self._filled = np.flatnonzero(rows.sizes)
        n_filled = max(len(self._filled), 1)
        means = torch.from_numpy((np.bincount(rows.columns, minlength=rows.n_columns) / n_filled).astype(np.float32))
        width = guide_width if settings.guided else None
        self.denoiser = Denoiser(means, settings.hidden, settings.step_width, width, generator).to(device)
        self.optimiser = torch.optim.Adam(self.denoiser.parameters(), lr=settings.learning_rate)
        # Constant factors: an average step weighs 1, and a row that is predicted as zeros costs 1. So guide_weight
        # means the same for every schedule and for every size of rows.
        weights = self.diffusion.elbo_weight(torch.arange(1, settings.n_steps + 1, device=device))
        scale = 1 / (float(weights.mean()) * max(len(rows) / n_filled, 1e-12))
        # Divided by how much more often than evenly a step is drawn: the expected loss is that of even draws.
        drawn = self.diffusion.step_probabilities()
        self._step_weights = (scale * weights / (settings.n_steps * drawn)).to(torch.float32)
        self._step_ends = torch.cumsum(drawn, 0)[:-1]

    def train_epoch(
        self,
        guide: Tensor | None,
        column_embeddings: Tensor | None,
        generator: torch.Generator,
        target: Tensor | None = None,
    ) -> DiffusionLosses:
        """One pass over the rows that have ones; between its first batch and its last nothing waits for the device.

        Args:
            guide: (n, d) z̃ of each row; ignored where settings.guided is off.
            column_embeddings: (E, d) that the guidance term maps x̂_0 with; None leaves the term out.
            generator: draws the order of the rows, their steps and the noise.
            target: (n, d) that the guidance term draws the reconstructions to, where that is not the guide: so a
                denoiser without a guide can have the term too (DiffMM's modality-aware signal).

        Returns:
            The mean losses.

        Raises:
            TrainingError: a loss is no finite number.
        """
        if not len(self._filled):
            return DiffusionLosses(0.0, 0.0)
        guide = self._guide(guide)
        target = guide if target is None else target.detach().to(self.device)
        if column_embeddings is None or target is None:
            drawn_to = None
        else:
            drawn_to = (column_embeddings.detach().to(self.device), target)
        place = generator.device
        order = torch.randperm(len(self._filled), generator=generator, device=place).cpu().numpy()
        steps = self._draw_steps(len(order), generator)
        weights = self._step_weights[steps - 1]
        rows = self._filled[order]
        row_numbers = torch.from_numpy(rows).to(self.device)
        totals = torch.zeros(2, device=self.device)
        for begin, end, entries in self._batches(rows, self.settings.batch_size):
            of_batch = None if guide is None else guide.index_select(0, row_numbers[begin:end])
            hidden = self._noised_hidden(entries, steps[begin:end], of_batch, generator)
            elbo = (weights[begin:end] * self.denoiser.squared_error(hidden, entries)).mean()
            guidance = torch.zeros_like(elbo)
            if drawn_to is not None:
                targets = drawn_to[1].index_select(0, row_numbers[begin:end])
                guidance = guidance_error(self.denoiser.embed(hidden, drawn_to[0]), targets)
            loss = elbo + self.settings.guide_weight * guidance
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            totals += (end - begin) * torch.stack([elbo.detach(), guidance.detach()])
        elbo_mean, guidance_mean = (totals / len(rows)).tolist()
        if not math.isfinite(elbo_mean + guidance_mean):
            raise TrainingError(
                f"The diffusion's loss is {elbo_mean + guidance_mean}: lower diffusion.learning_rate "
                f"(now {self.settings.learning_rate:g})."
            )
        return DiffusionLosses(elbo_mean, guidance_mean)

    @torch.no_grad()
    def reconstruct(self, guide: Tensor | None, generator: torch.Generator, n_kept: int) -> SparseRows:
        """The reverse process from x_0 noised to step T', then the q strongest columns of each row that has ones.

        Eq. (10), (12). What a step needs of x is u = W_x x, (n, h): u_{t-1} = posterior mean of (W_x x̂_0, u_t)
        + σ_t W_x ε. It is held for all rows, so the draws do not depend on `chunk`; whole rows are made `chunk` at a
        time.

        Args:
            guide: (n, d) z̃; ignored where settings.guided is off.
            generator: draws the noise.
            n_kept: q.

        Returns:
            (n, E) with min(q, E) ones in each row that has ones in x_0, and none in the others; of equally strong
            columns the first ones are kept. With a draw temperature above 0 they are drawn instead (`perturbed`).
        """
        n_kept = min(n_kept, self.rows.n_columns)
        sizes = np.where(self.rows.sizes > 0, n_kept, 0)
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if not len(self._filled):
            return SparseRows(indptr, np.zeros(0, np.int64), self.rows.n_columns)
        hidden = self._reverse(self._guide(guide), generator)
        at_once = max(1, min(self.settings.chunk, _MAX_CELLS // self.rows.n_columns))
        temperature = self.settings.draw_temperature
        kept = []
        for part in torch.split(hidden, at_once):
            strengths = self.denoiser.rows(part)
            if temperature > 0:
                strengths = perturbed(strengths, temperature, generator)
            kept.append(strongest_columns(strengths, n_kept))
        return SparseRows(indptr, torch.cat(kept).flatten().cpu().numpy(), self.rows.n_columns)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimiser's state: all that an epoch leaves behind."""
        return {"denoiser": self.denoiser.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the next epoch gives the same bits."""
        self.denoiser.load_state_dict(state["denoiser"])
        # torch would take the moments themselves, and go on in them.
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))

    def tensors(self) -> dict[str, Tensor]:
        """`state_dict` as tensors by name, for a checkpoint."""
        state = self.state_dict()
        found = {f"denoiser.{name}": value for name, value in state["denoiser"].items()}
        for row, moments in state["optimiser"]["state"].items():
            found |= {f"adam.{row}.{key}": value for key, value in moments.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "denoiser":
                weights[rest] = value
            elif kind == "adam":
                row, key = rest.split(".")
                # Adam keeps its step counter on the CPU whatever the device.
                moments.setdefault(int(row), {})[key] = value.cpu() if key == "step" else value
        optimiser = {**self.optimiser.state_dict(), "state": moments}
        self.load_state_dict({"denoiser": weights, "optimiser": optimiser})

    def _guide(self, tensor: Tensor | None) -> Tensor | None:
        """A tensor of the guidance: without gradient, on the device, None where the denoiser is not guided."""
        return None if tensor is None or not self.settings.guided else tensor.detach().to(self.device)

    def _draw_steps(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) steps by `Diffusion.step_probabilities`."""
        drawn = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64).to(self.device)
        return torch.searchsorted(self._step_ends, drawn, right=True) + 1

    def _noise(self, n: int, root: Tensor, generator: torch.Generator) -> Tensor:
        """W_x ε of n rows: (n, h)."""
        z = torch.randn(n, len(root), generator=generator, device=generator.device, dtype=root.dtype)
        return z.to(self.device, non_blocking=True) @ root

    def _noised_hidden(
        self, entries: Entries, steps: Tensor, guide: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """The hidden layer of x_t ~ q(x_t | x_0), Eq. (8) under W_x: (b, h)."""
        clean = entries.sum_of(self.denoiser.input_weight)
        noise = self._noise(len(clean), self.denoiser.noise_root(), generator)
        return self.denoiser.hidden(self.diffusion.q_sample(clean, noise, steps), steps, guide)

    def _reverse(self, guide: Tensor | None, generator: torch.Generator) -> Tensor:
        """The hidden layer of the reverse process's last step, for all rows that have ones: (n filled, h)."""
        _, _, entries = next(self._batches(self._filled, len(self._filled)))
        if guide is not None:
            guide = guide.index_select(0, torch.from_numpy(self._filled).to(self.device))
        root, start = self.denoiser.noise_root(), start_step(self.settings)
        weight, bias = self.denoiser.feedback()
        clean = entries.sum_of(self.denoiser.input_weight)
        projected = self.diffusion.q_sample(clean, self._noise(len(clean), root, generator), start)
        for step in range(start, 1, -1):
            hidden = self.denoiser.hidden(projected, self._step(step), guide)
            projected = self.diffusion.posterior_mean(hidden @ weight + bias, projected, step)
            deviation = torch.sqrt(self.diffusion.posterior_variance(step)).to(projected.dtype)
            projected = projected + deviation * self._noise(len(projected), root, generator)
        return self.denoiser.hidden(projected, self._step(1), guide)

    def _step(self, step: int) -> Tensor:
        return torch.full((1,), step, device=self.device)

    def _batches(self, rows: NDArray[np.int64], size: int) -> Iterator[tuple[int, int, Entries]]:
        """The ones of some rows, batch by batch: all of them go to the device at once."""
        sizes = self.rows.sizes[rows]
        ends = np.cumsum(sizes)
        begins = ends - sizes
        place = np.arange(ends[-1]) + np.repeat(self.rows.indptr[rows] - begins, sizes)
        columns, offsets = (torch.from_numpy(a).to(self.device) for a in (self.rows.columns[place], begins))
        counts = torch.from_numpy(sizes.astype(np.float32)).to(self.device)
        for begin in range(0, len(rows), size):
            end = min(begin + size, len(rows))
            first, last = int(begins[begin]), int(ends[end - 1])
            yield begin, end, Entries(columns[first:last], offsets[begin:end] - first, counts[begin:end])


def perturbed(strengths: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Strengths with Gumbel noise: a row's q largest are a draw of q columns without replacement.

    The first one is drawn in proportion to strength^(1/temperature), the next ones likewise of what is left (Kool, van
    Hoof & Welling, "Stochastic Beams and Where to Find Them", ICML 2019). On a CPU the draws don't depend on how rows
    are parted.

    Args:
        strengths: (b, E); what is below `_WEAKEST` counts as that much.
        temperature: above 0; the larger, the less strength counts.
        generator: draws the noise.
    """
    uniform = torch.rand(strengths.shape, generator=generator, device=generator.device).to(strengths.device)
    gumbel = -torch.log(-torch.log(uniform))
    return torch.log(strengths.clamp_min(_WEAKEST)) / temperature + gumbel


def strongest_columns(strengths: Tensor, n_kept: int) -> Tensor:
    """The columns of each row's largest values; of equal ones the first.

    Args:
        strengths: (b, E).
        n_kept: q ≤ E.

    Returns:
        (b, q) columns, ascending.
    """
    n_columns = strengths.shape[1]
    # One more than is kept: where it equals the last one kept, top-k's choice among the equal ones is nobody's promise.
    found = torch.topk(strengths, min(n_kept + 1, n_columns), dim=1)
    columns = found.indices[:, :n_kept]
    if n_kept < n_columns:
        tied = torch.nonzero(found.values[:, n_kept - 1] == found.values[:, n_kept]).squeeze(1)
        if len(tied):
            order = torch.sort(strengths[tied], dim=1, descending=True, stable=True).indices
            columns = columns.index_copy(0, tied, order[:, :n_kept])
    return torch.sort(columns, dim=1).values


def random_thinning(rows: SparseRows, n_kept: int, generator: torch.Generator) -> SparseRows:
    """Random columns of each row's own: q of them, or all where it has fewer (KDiffE_4).

    Args:
        rows: (n, E).
        n_kept: q.
        generator: draws which.
    """
    drawn = torch.rand(len(rows), generator=generator, device=generator.device, dtype=torch.float64).cpu().numpy()
    order = np.lexsort((drawn, rows.rows))
    place = np.arange(len(rows)) - np.repeat(rows.indptr[:-1], rows.sizes)
    kept = np.sort(order[place < n_kept])
    indptr = np.concatenate([[0], np.cumsum(np.minimum(rows.sizes, n_kept))]).astype(np.int64)
    return SparseRows(indptr, rows.columns[kept], rows.n_columns)


def kept_triplets(
    kept: SparseRows, item_rows: _Rows, relation_rows: _Rows, entity_rows: _Rows
) -> tuple[_Rows, _Rows, _Rows]:
    """The triplets of a kept graph Ĝ_k (D5).

    A pair that the graph has keeps its relations, all of them; an added one gets the most frequent relation of its
    entity (of equally frequent ones the first; of an entity without triplets, that of the whole graph).

    Args:
        kept: (J, E) the kept pairs of items and entities.
        item_rows: (n,) the graph's heads.
        relation_rows: (n,) its relations.
        entity_rows: (n,) its tails.

    Returns:
        Items, relations and entities of the kept triplets, sorted by (item, relation, entity).
    """
    n_entities = kept.n_columns
    n_relations = int(relation_rows.max(initial=0)) + 1
    codes = item_rows.astype(np.int64) * n_entities + entity_rows
    kept_codes = kept.rows * n_entities + kept.columns
    had = np.isin(codes, kept_codes)
    added = kept_codes[~np.isin(kept_codes, codes)]
    # Pairs of entity and relation, by entity; of an entity the most frequent first, then the first.
    of_pairs, counts = np.unique(entity_rows.astype(np.int64) * n_relations + relation_rows, return_counts=True)
    of_pairs = of_pairs[np.lexsort((of_pairs, -counts, of_pairs // n_relations))]
    known, first = np.unique(of_pairs // n_relations, return_index=True)
    usual = np.full(n_entities, np.bincount(relation_rows, minlength=1).argmax())
    usual[known] = of_pairs[first] % n_relations
    items = np.concatenate([item_rows[had], added // n_entities])
    entities = np.concatenate([entity_rows[had], added % n_entities])
    relations = np.concatenate([relation_rows[had], usual[added % n_entities]])
    order = np.lexsort((entities, relations, items))
    return items[order].astype(np.int32), relations[order].astype(np.int32), entities[order].astype(np.int32)


def operations(
    rows: SparseRows, guide_width: int, settings: DiffusionSettings, *, has_target: bool = False
) -> tuple[int, int]:
    """Multiplications and additions of an epoch of training and of a reverse process, as the module's text has them.

    For E > h; with fewer columns it is less. Of the text's 10 n h d, 4 are the guide's and 6 the guidance term's.

    Args:
        rows: x_0.
        guide_width: d.
        settings: the diffusion's.
        has_target: whether the loss has the guidance term although the denoiser has no guide (DiffMM's signal).
    """
    n, nnz = int(np.count_nonzero(rows.sizes)), len(rows)
    columns, h, guide = rows.n_columns, settings.hidden, guide_width if settings.guided else 0
    term = guide_width if settings.guided or has_target else 0
    optimiser_steps = -(-n // settings.batch_size)
    per_step = 8 * columns * h**2 + 4 * columns * h * term + 4 * h**3 + 28 * columns * h
    training = optimiser_steps * per_step + n * h * (10 * h + 4 * guide + 6 * term) + 4 * nnz * h
    start = start_step(settings)
    hidden_space = n * h**2 * (4 * start - 2) + 2 * n * h * guide * start + 4 * columns * h**2
    return training, hidden_space + 2 * n * columns * h
