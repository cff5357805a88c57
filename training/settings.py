"""Settings of training: frozen, a sentence for each field, checked when they are made.

Plain dataclasses, so that the numerics import with torch, numpy, scipy and numba alone. `training.configuration` reads
them from TOML and the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from training.data.split import SplitSettings

# What a setting is where it is left to be selected on the validation split.
OPEN = -1.0


def setting(
    default: Any, sentence: str, *, ge: float | None = None, le: float | None = None, may_be_open: bool = False
) -> Any:
    """A dataclass field with its sentence and its bounds, beside which `OPEN` may be allowed."""
    # pydantic reads ge and le by itself, and knows of no value beside them.
    bounds = {"ge": OPEN, "or_ge": ge, "le": le} if may_be_open else {"ge": ge, "le": le}
    return field(default=default, metadata={"description": sentence, **bounds})


class _Checked:
    """Checks the bounds of every field."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if not math.isfinite(value):
                raise ValueError(f"{f.name} must be finite")
            least, most = f.metadata.get("ge"), f.metadata.get("le")
            beside = f.metadata.get("or_ge")
            if beside is not None and value != OPEN and not value >= beside:
                raise ValueError(f"{f.name} must be ≥ {beside:g}, or {OPEN:g}")
            if least is not None and not value >= least:
                raise ValueError(f"{f.name} must be ≥ {least:g}")
            if most is not None and not value <= most:
                raise ValueError(f"{f.name} must be ≤ {most}")


@dataclass(frozen=True)
class ModelSettings(_Checked):
    """The shape of the model."""

    width: int = setting(64, "Width of the embeddings, d.", ge=1, le=4096)
    n_layers: int = setting(3, "Propagation layers, L.", ge=0, le=16)
    readout: Literal["mean", "sum"] = setting("mean", "Readout weights: mean is α_l = 1/(L+1), sum is α_l = 1 (D4).")
    readout_growth: float = setting(
        1.0,
        "How many times the weight of the layer below a layer has, g: α_l is multiplied by g^l. Above 1 far neighbors "
        "count more, and a vector's own row less (D4).",
        ge=0.1,
        le=4.0,
    )
    similarity_weight: float = setting(0.7, "Weight of the attention matrix S in L̄, ξ.", ge=0.0)
    self_loops: bool = setting(False, "Whether L̄ has self-loops.")
    knowledge: bool = setting(True, "Whether items are aggregated with their entities, formulas (1) and (2).")
    init_scale: float = setting(
        0.03, "Standard deviation of the embeddings at the start; 0 is Xavier's √(2/(rows + width)).", ge=0.0
    )
    kind: Literal["kdiffe", "diffmm"] = setting("kdiffe", "Which model is trained: kdiffe or diffmm.")
    views: tuple[Literal["knowledge", "multimodal"], ...] = setting(
        ("knowledge",),
        "Views whose inner products are summed (D9): knowledge, the main view, and multimodal beside it, which needs "
        "feature vectors and is left out without.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if "knowledge" not in self.views:
            raise ValueError("views must name knowledge, the main view: others can only stand beside it")


@dataclass(frozen=True)
class WalkingSettings(_Checked):
    """The random walks behind S, formula (5). Their seed is the run's."""

    n_walks: int = setting(12, "Walks from a node, R.", ge=1, le=1024)
    walk_length: int = setting(50, "Steps of a walk, M.", ge=1, le=65536)
    restart_probability: float = setting(0.15, "Probability of a step back to the start node, c.", ge=0.0, le=0.999)


@dataclass(frozen=True)
class EntitySettings(_Checked):
    """Entities made from feature vectors (D1)."""

    source: Literal["auto", "always", "never"] = setting(
        "auto", "When features become entities: auto is where the set brings no knowledge graph."
    )
    n_centroids: int = setting(512, "Size of each modality's codebook.", ge=1)
    n_nearest: int = setting(3, "How many nearest centroids an item is linked to, for each modality.", ge=1)


@dataclass(frozen=True)
class MultimodalSettings(_Checked):
    """The multimodal view (D9), and DiffMM's modality-aware aggregation."""

    width: int = setting(64, "Width of the multimodal view.", ge=1, le=4096)
    generated_weight: float = setting(0.5, "DiffMM: weight of the aggregation over a generated graph.", ge=0.0)
    residual_weight: float = setting(0.5, "DiffMM: weight of the modal embeddings beside the propagated ones.", ge=0.0)


@dataclass(frozen=True)
class DiffusionSettings(_Checked):
    """The guided diffusion over the knowledge graph (8)-(12), and the graph Ĝ_k that it generates."""

    graph: Literal["diffusion", "random"] = setting(
        "diffusion", "How Ĝ_k is made: by the diffusion, or as a random thinning to as many edges (KDiffE_4)."
    )
    n_kept: int = setting(4, "Entities that Ĝ_k keeps of an item, q.", ge=1, le=4096)
    draw_temperature: float = setting(
        0.0,
        "Ĝ_k's entities of an item are drawn anew at each rebuild, in proportion to the reconstruction to the power of "
        "one over this; 0 keeps the q strongest (the paper's).",
        ge=0.0,
    )
    guided: bool = setting(True, "Whether the users' embeddings guide the denoiser (KDiffE_2: not).")
    guide_weight: float = setting(0.1, "Weight of the guidance term in the denoiser's loss.", ge=0.0)
    n_steps: int = setting(10, "Diffusion steps, T.", ge=1, le=10_000)
    start_step: int = setting(0, "Step that the reverse process starts from, T'; 0 is half of T.", ge=0, le=10_000)
    noise_scale: float = setting(0.1, "Scale of the noise (DiffRec's).", ge=0.0)
    noise_min: float = setting(1e-4, "Variance of the first step, before the scale.", ge=0.0, le=1.0)
    noise_max: float = setting(0.02, "Variance of the last step, before the scale.", ge=0.0, le=1.0)
    hidden: int = setting(128, "Width of the denoiser's hidden layer.", ge=1, le=65536)
    step_width: int = setting(16, "Width of the step embedding.", ge=2, le=4096)
    learning_rate: float = setting(1e-3, "Adam's learning rate for the denoiser.", ge=1e-8)
    batch_size: int = setting(256, "Rows in a batch of the denoiser: bounds its memory.", ge=1)
    chunk: int = setting(2048, "Rows whose reconstruction is made at once: bounds its memory.", ge=1)
    rebuild_every: int = setting(1, "Epochs between two generated graphs.", ge=1)


@dataclass(frozen=True)
class ContrastSettings(_Checked):
    """The contrast between a main view and the view over the generated graph, formula (13), or noise."""

    weight: float = setting(
        1e-3, "Weight of the contrastive loss, θ1; 0 leaves it and the diffusion out (KDiffE_3).", ge=0.0
    )
    temperature: float = setting(0.2, "Temperature of InfoNCE, τ.", ge=1e-3)
    view: Literal["generated", "noise"] = setting(
        "generated",
        "KDiffE: what the main view is contrasted with: the view over the generated graph, where there is one, or "
        "itself, each copy under noise of its own (SimGCL's).",
    )
    noise: float = setting(0.1, "KDiffE: length of the noise that a vector of length 1 gets, SimGCL's ε.", ge=0.0)
    batch_size: int = setting(
        2048,
        "Most interactions of a batch whose users and items are contrasted, each with all others: time grows with its "
        "square.",
        ge=2,
    )
    between: Literal["modalities", "main"] = setting(
        "modalities",
        "DiffMM: each modality's view is contrasted with the others', or with the main view; a lone one with the main.",
    )

    @property
    def second_view(self) -> Literal["generated", "noise"] | None:
        """KDiffE: `view`, None where nothing is contrasted."""
        return self.view if self.weight > 0 else None


@dataclass(frozen=True)
class LossSettings(_Checked):
    """What is minimised."""

    kind: Literal["auto", "bpr", "softmax"] = setting(
        "auto",
        "bpr is formula (15); softmax is the sampled softmax; auto fits with each and keeps what validation prefers "
        "(bpr without a validation split).",
    )
    n_negatives: int = setting(
        0,
        "Uniform negatives: for each positive (bpr), or shared by a batch (softmax); 0 is 1 for bpr, 1024 for softmax.",
        ge=0,
        le=65536,
    )
    l2_weight: float = setting(1e-2, "Weight of the squared norm of a batch's base embeddings, θ2.", ge=0.0)
    user_exponent: float = setting(
        1.0,
        "Interactions of a user with d of them are sampled with weight d^-a; 0 takes all alike, 1 all users alike.",
        ge=0.0,
        le=2.0,
    )

    @property
    def negatives(self) -> int:
        """The number of negatives, chosen where the settings leave it open."""
        return self.n_negatives or (1 if self.kind == "bpr" else 1024)


@dataclass(frozen=True)
class OptimiserSettings(_Checked):
    """How it is minimised: Adam."""

    learning_rate: float = setting(2e-3, "Adam's learning rate.", ge=1e-8)
    batch_size: int = setting(2048, "Interactions in a batch, where the next two settings allow it.", ge=1)
    min_batches: int = setting(30, "Batches an epoch has at least: on a small set batches are smaller.", ge=1)
    max_batches: int = setting(
        100,
        "Batches an epoch has at most: each passes over the whole graph, so on a large set batches are larger.",
        ge=1,
    )
    max_epochs: int = setting(400, "Most epochs.", ge=1)
    average: float = setting(
        0.98,
        "Decay a step of the moving average of the parameters, which is what is evaluated and kept; 0 keeps the last.",
        ge=0.0,
        le=0.9999,
    )
    patience: int = setting(15, "Evaluations without a better validation NDCG@20 before training stops.", ge=1)
    selected_by: Literal["served", "graph"] = setting(
        "served",
        "Whose validation NDCG@20 selects the epoch: served is what is served, B beside the graph part; graph is the "
        "graph part's alone (D8).",
    )
    evaluate_every: int = setting(2, "Epochs between evaluations.", ge=1)


@dataclass(frozen=True)
class TableSettings(_Checked):
    """One of the tables that B is the mean of: what `ItemItemSettings` calls by the same names, resolved."""

    # Read by pydantic, which knows dataclasses: a misspelt name is refused.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    weight: float = setting(1.0, "Of the table, beside the others'.", ge=0.0)
    l2: float = setting(OPEN, "The regression's λ.", ge=1e-6, may_be_open=True)
    target_exponent: float = setting(
        OPEN, "How far an entry is divided by what is known about its target.", ge=0.0, le=1.0, may_be_open=True
    )
    two_hop_weight: float = setting(0.0, "Weight of two hops.", ge=0.0)
    content: str = setting("none", "By what content items are alike.")
    content_weight: float = setting(0.0, "Weight of the look-alikes.", ge=0.0)
    content_gram: float = setting(0.0, "How much likeness by content weighs in the regression.", ge=0.0)


@dataclass(frozen=True)
class ItemItemSettings(_Checked):
    """The item-item table B (D10)."""

    method: Literal["auto", "ease", "local", "rp3beta", "none"] = setting(
        "auto", "How B is made; auto is ease up to `exact_items` items and local, ease's neighborhoods, beyond."
    )
    exact_items: int = setting(7_500, "Most items that auto makes B exactly for (ease).", ge=1)
    ease_limit: int = setting(25_000, "Most items for ease, whose time grows with J³ and memory with J².", ge=1)
    l2: float = setting(
        OPEN, "The regression's λ (ease, local); -1 selects it on the validation split.", ge=1e-6, may_be_open=True
    )
    user_exponent: float = setting(
        0.25,
        "A user with d interactions weighs d^-a in the regression (ease, local), interactions 1 on average; 0 takes "
        "all users alike.",
        ge=0.0,
        le=2.0,
    )
    target_exponent: float = setting(
        OPEN,
        "How far an entry is divided by what is known about its target (ease, local): 1 is EASE, which favours popular "
        "items, 0 is symmetric; -1 selects it on the validation split.",
        ge=0.0,
        le=1.0,
        may_be_open=True,
    )
    n_candidates: int = setting(300, "Candidates of an item (local); time grows with their square.", ge=1, le=10_000)
    beta: float = setting(0.4, "RP3β's exponent on an item's popularity.", ge=0.0, le=2.0)
    per_row: int = setting(
        100, "Entries that are kept in each row, look-alikes by content not counted.", ge=1, le=10_000
    )
    content: str = setting(
        "auto",
        "By what content items are alike: features, features.MODALITY, relations, relation.NAME, or none; auto selects "
        "on the validation split.",
    )
    content_weight: float = setting(
        OPEN,
        "Mean entry of the look-alikes that are added, in that of the rest of B; -1 selects it on validation.",
        ge=0.0,
        may_be_open=True,
    )
    content_gram: float = setting(
        OPEN,
        "How much likeness by content weighs in the regression itself (ease, local), in interactions of an item: it is "
        "added to the Gram matrix (CEASE); -1 selects it on validation, and 0 for feature vectors.",
        ge=0.0,
        may_be_open=True,
    )
    two_hop_weight: float = setting(
        OPEN,
        "Mean entry of what the regression reaches in two hops (ease, local; B·B) that is added, in that of the "
        "regression; -1 selects it on validation.",
        ge=0.0,
        may_be_open=True,
    )
    n_neighbors: int = setting(50, "Look-alikes of an item.", ge=1, le=10_000)
    n_sources: int = setting(
        2,
        "Sources of content, the best by their look-alikes, that are tried in the regression where `content` is auto.",
        ge=1,
        le=100,
    )
    weight: float = setting(
        OPEN, "Weight of B beside Z_u·Z_v; -1 selects it on the validation split.", ge=0.0, may_be_open=True
    )
    n_selections: int = setting(
        8,
        "How often what is left open is selected, each time on another random part of the validation users; B is the "
        "mean of the tables. 1 takes what is best on all of them.",
        ge=1,
        le=64,
    )
    mean_of: tuple[TableSettings, ...] = setting(
        (), "The tables that B is the mean of, in place of what is named for one above; training writes it."
    )

    @property
    def is_wanted(self) -> bool:
        """Whether there is to be a B."""
        return self.method != "none" and self.weight != 0


@dataclass(frozen=True)
class RunSettings(_Checked):
    """The run."""

    seed: int = setting(0, "Seed of everything that is drawn: one seed gives one result.", ge=0, le=2**31 - 1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where training runs; auto is cuda where there is one.")
    checkpoint_every: int = setting(10, "Epochs between checkpoints.", ge=1)


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that a training run can be told."""

    split: SplitSettings = field(default_factory=SplitSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    walks: WalkingSettings = field(default_factory=WalkingSettings)
    entities: EntitySettings = field(default_factory=EntitySettings)
    multimodal: MultimodalSettings = field(default_factory=MultimodalSettings)
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    item_item: ItemItemSettings = field(default_factory=ItemItemSettings)
    run: RunSettings = field(default_factory=RunSettings)
