"""What goes in and out over HTTP, described for OpenAPI. The hot path writes its bytes itself; a test compares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model_store.admission import LONGEST_ID, plain_text
from model_store.experiment import LONGEST_NAME, MAIN, MOST_VARIANTS, VARIANT_NAME, Arm, check_arms
from service.errors import ErrorCode

Strategy = Literal["model", "fold_in", "popular"]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


# The year 9999 ends: what lies beyond is no number of seconds, but of milliseconds.
LATEST = 253_402_300_799

Text = Annotated[str, Field(min_length=1), AfterValidator(plain_text)]
# What a version or a filter knows by its name, as it does ids: a category, a relation, an entity, a modality.
Name = Annotated[Text, Field(max_length=LONGEST_ID)]


# ---- in --------------------------------------------------------------------------------------------------------------


class NewInteraction(BaseModel):
    """What a user did."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"user_id": "u7", "item_id": "i42", "timestamp": 1767225600.0, "id": "order-1138"}]
        },
    )

    user_id: Text = Field(description="External id of the user; an unknown one becomes a new user.")
    item_id: Text = Field(description="External id of the item; an unknown one becomes a new item.")
    timestamp: float | None = Field(
        None,
        allow_inf_nan=False,
        ge=-LATEST,
        le=LATEST,
        description="Seconds since 1970, not milliseconds; the time of arrival where it is missing.",
    )
    type: Text = Field(
        "interaction", description="Kind of interaction; its weight (/admin/types) says how often training samples it."
    )
    id: Text | None = Field(None, description="Idempotency key: sent again with the same id, it counts once.")


class NewInteractions(BaseModel):
    """Several interactions at once."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"interactions": [{"user_id": "u7", "item_id": "i42"}]}]},
    )

    interactions: list[NewInteraction] = Field(min_length=1)


# ---- out -------------------------------------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    """What went wrong."""

    code: ErrorCode
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """Every error's answer."""

    model_config = _example(
        error={"code": "unknown_item", "message": "Unknown item 'i9': ...", "request_id": "8f1c0f4e5d6a4b7c"}
    )

    error: ErrorBody


class RecommendedItem(BaseModel):
    """An item of a list."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    score: float = Field(description="Higher is better; a popular item's score is its number of interactions.")
    strategy: Strategy = Field(
        description="model: trained with the user; fold_in: the user is newer; popular: the most interactions."
    )


class Recommendations(BaseModel):
    """What a user is recommended."""

    model_config = _example(
        user_id="u7",
        items=[{"item_id": "i3", "score": 1.25, "strategy": "model"}],
        model_version="v0001",
        sequence=1204,
        refreshed_at=1200,
        recommendation_id="v0001.1204.1200.8d3f02ab",
        index="faiss",
        variant="main",
    )

    user_id: str
    items: list[RecommendedItem]
    model_version: str
    sequence: int = Field(description="The last interaction of the log that the user's row holds.")
    refreshed_at: int = Field(description="The last interaction of the log that T and the item vectors hold.")
    recommendation_id: str = Field(description="Names this moment: /explain takes it and explains what was served.")
    index: str = Field(description="The backend that searched; empty where none was asked.")
    variant: str = Field(description="The user's in the experiment; `main` for the active version.")


class ContributionPart(BaseModel):
    """What one item of the user's adds to the score."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    contribution: float = Field(description="link + attention + direct.")
    similarity: float = Field(description="S(u, i): how much the random walks from both have visited alike.")
    link: float
    attention: float
    direct: float
    share: float = Field(description="contribution / (|self| + Σ |contributions|).")


class EntityPart(BaseModel):
    """What one entity of the item's knowledge graph adds."""

    model_config = ConfigDict(extra="forbid")

    relation: str
    entity: str
    attention: float
    contribution: float


class ItemParts(BaseModel):
    """Z_u · Z_v by the item's side: own + Σ entities + rest = sum."""

    model_config = ConfigDict(extra="forbid")

    view: str
    own: float
    entities: list[EntityPart]
    rest: float
    sum: float


class PathUser(BaseModel):
    """A user on the way: met the contributing item, and perhaps the explained one. The explained user is one, too."""

    model_config = ConfigDict(extra="forbid")

    user_id: str = Field(description="Not to be shown to other users.")
    amount: float
    similarity: float = Field(description="S(i, m) between the contributing item and this user.")
    met_item: bool = Field(description="Whether this user has met the explained item.")


class ItemPaths(BaseModel):
    """What a contribution's link + attention is made of: own + Σ users + rest = sum."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    own: float = Field(description="By the contributing item's own vector: user → item ⇢ explained item.")
    users: list[PathUser] = Field(description="user → item → this user ⇢ explained item; the largest first, 5 at most.")
    n_users: int = Field(description="How many such users there are.")
    rest: float = Field(description="The other users.")
    sum: float = Field(description="link + attention of this contribution.")


class Paths(BaseModel):
    """What is behind link and attention: Σ items + rest = sum."""

    model_config = ConfigDict(extra="forbid")

    items: list[ItemPaths] = Field(description="The largest first, 10 at most.")
    rest: float = Field(description="The other contributions.")
    sum: float = Field(description="Σ (link + attention) over all contributions.")


class SharingItem(BaseModel):
    """One of the user's items that has the entity, too."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    contribution: float = Field(description="What it adds by way of the entity: a piece of its link + attention.")


class Reason(BaseModel):
    """An entity of the explained item: Σ items + others = contribution."""

    model_config = ConfigDict(extra="forbid")

    relation: str
    entity: str
    name: str = Field(description="The entity's id, less its relation.")
    contribution: float
    items: list[SharingItem] = Field(description="The user's items that share it; the largest first, 5 at most.")
    n_items: int = Field(description="How many such items there are.")
    others: float = Field(description="Everything else that the user adds by way of it.")


class Reasons(BaseModel):
    """The score by the item's side: own + Σ entities + rest + direct = sum."""

    model_config = ConfigDict(extra="forbid")

    view: str
    own: float = Field(description="By the item's own vector.")
    entities: list[Reason] = Field(description="The largest first.")
    rest: float = Field(description="By what propagation and constants add to the item's vector.")
    direct: float = Field(description="Σ direct over all contributions.")
    sum: float = Field(description="The score.")


class NamedItem(BaseModel):
    """An item."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None


class RankedItem(NamedItem):
    """An item with a score."""

    score: float


class Counterfactual(BaseModel):
    """The user's own interactions without which the item leaves the list; none of them can be left out.

    Verified by removing them from a copy (the user's row exact, T and items as in force) and ranking again. What is
    removed stays out of the list.
    """

    model_config = ConfigDict(extra="forbid")

    k: int
    found: bool
    why: Literal["not_in_list", "none_exists", "none_found"] | None = Field(
        description="Why there is none: every set was tried (none_exists), or the search met its limit (none_found)."
    )
    removed: list[NamedItem]
    score: float | None = Field(description="The item's score without them; null where the list becomes popular items.")
    rank: int | None = Field(description="The item's rank without them.")
    replaced_by: list[RankedItem] = Field(description="What comes into the list, best first, 5 at most.")
    tried: int = Field(description="How many removals were tried.")
    most: int = Field(description="How many interactions a set may have.")


class Addition(BaseModel):
    """Interactions that would bring the item into the list; none of them can be left out. Verified likewise."""

    model_config = ConfigDict(extra="forbid")

    found: bool
    items: list[NamedItem]
    score: float | None
    rank: int | None
    tried: int
    most: int


class WhyNot(BaseModel):
    """Why the item is not among the k best."""

    model_config = ConfigDict(extra="forbid")

    k: int
    in_list: bool
    rules: list[Literal["outranked", "seen", "withdrawn", "filtered", "no_vector", "no_evidence"]] = Field(
        description="What left it out: outranked: others score higher; seen: the user has met it; withdrawn: it is "
        "never recommended; filtered: a condition of the request; no_vector: nothing is known of it yet; no_evidence: "
        "the list is the popular items."
    )
    filters: list[str] = Field(description="The conditions of the request that don't hold for it.")
    rank: int | None = Field(description="Among what the list may show; the one that it would have where it may not.")
    cutoff: float | None = Field(description="The k-th score.")
    margin: float | None = Field(description="score - cutoff.")
    addition: Addition | None = Field(description="Null unless it was outranked alone.")


class Explanation(BaseModel):
    """A served score, taken apart: score = self + Σ contributions."""

    model_config = _example(
        user_id="u7",
        item_id="i3",
        name=None,
        score=1.25,
        strategy="model",
        rank=1,
        self=0.25,
        self_share=0.2,
        contributions=[
            {
                "item_id": "i8",
                "name": None,
                "contribution": 1.0,
                "similarity": 0.4,
                "link": 0.5,
                "attention": 0.25,
                "direct": 0.25,
                "share": 0.8,
            }
        ],
        sum=1.25,
        additivity_error=0.0,
        item_parts=None,
        sentence="“i3” ranks 1st because this user chose “i8” (80% of the weight).",
        paths=None,
        reasons=None,
        counterfactual=None,
        why_not=None,
        model_version="v0001",
        sequence=1204,
        refreshed_at=1200,
        recommendation_id="v0001.1204.1200.8d3f02ab",
        variant="main",
    )

    user_id: str
    item_id: str
    name: str | None
    score: float = Field(description="As served; 0 for an item without a vector.")
    strategy: Strategy = Field(description="How the item stands in this list; popular ones don't rank by this score.")
    rank: int | None = Field(description="Among the unseen items; null for a seen item or one without a vector.")
    self: float = Field(description="What the user's own vector adds.")
    self_share: float
    contributions: list[ContributionPart] = Field(description="The largest magnitude first.")
    sum: float = Field(description="self + Σ contributions, in double precision.")
    additivity_error: float = Field(description="|score - sum| / (|self| + Σ |contributions|).")
    item_parts: ItemParts | None
    sentence: str = Field(description="The same in plain words.")
    paths: Paths | None = Field(description="Null unless asked for, as the following ones.")
    reasons: Reasons | None = Field(description="Null, too, where the version has no knowledge graph.")
    counterfactual: Counterfactual | None
    why_not: WhyNot | None
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str = Field(description="Names the moment that is explained.")
    variant: str | None = Field(description="As in lists; null where a recommendation_id says what is explained.")


class ScoredItem(BaseModel):
    """An item and a number."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    score: float


class ItemList(BaseModel):
    """Items without a user."""

    model_config = ConfigDict(extra="forbid")

    items: list[ScoredItem]
    model_version: str
    sequence: int
    refreshed_at: int


class SimilarItems(ItemList):
    """Items near an item; score is the cosine."""

    item_id: str
    variant: str = Field(description="The variant whose version answered: `main` unless the request names another.")


class HistoryItem(BaseModel):
    """An item that a user has interacted with."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    source: Literal["version", "log"] = Field(description="Whether the version was trained with it, or it came since.")
    similarity: float = Field(description="S(u, i): how much the random walks from both have visited alike.")
    n_interactions: int = Field(description="How many users have interacted with the item.")


class History(BaseModel):
    """What a user has interacted with: what came since the version first, then by similarity."""

    model_config = _example(
        user_id="u7",
        in_version=True,
        n_items=1,
        items=[{"item_id": "i8", "name": None, "source": "version", "similarity": 0.4, "n_interactions": 12}],
        model_version="v0001",
        variant="main",
        sequence=1204,
        refreshed_at=1200,
    )

    user_id: str
    in_version: bool = Field(description="Whether the version was trained with the user.")
    n_items: int = Field(description="Of the whole history.")
    items: list[HistoryItem]
    model_version: str
    variant: str = Field(description="The user's in the experiment; `main` for the active version.")
    sequence: int
    refreshed_at: int


class Entity(BaseModel):
    """A fact of the knowledge graph about an item."""

    model_config = ConfigDict(extra="forbid")

    relation: str
    entity: str


class Item(BaseModel):
    """What is known of an item."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    in_version: bool = Field(description="Whether the version was trained with the item.")
    n_interactions: int = Field(description="How many users have interacted with it.")
    entities: list[Entity]


class Items(BaseModel):
    """Items that were asked for, each once, and the ids that are unknown."""

    model_config = ConfigDict(extra="forbid")

    items: list[Item]
    unknown: list[str]
    model_version: str
    sequence: int
    refreshed_at: int


class Accepted(BaseModel):
    """What became of the interactions: they are on disk, and no list shows them from now on."""

    model_config = _example(accepted=1, duplicates=0, sequence=1204)

    accepted: int
    duplicates: int
    sequence: int


class RetrainAccepted(BaseModel):
    """The job that was started."""

    model_config = _example(job_id="4f0c1a2b3d5e")

    job_id: str


class JobAnswer(BaseModel):
    """A retrain job."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float
    phase: str
    version: str | None
    error: str | None
    base: str
    sequence: int
    created_at: float
    finished_at: float | None
    owner: str = Field(description="The process that runs it.")
    heartbeat_at: float | None = Field(description="When its owner last said that it runs, seconds since 1970.")
    trigger: Literal["asked", "schedule", "interactions"] = Field(description="Who asked for it.")
    attempts: int = Field(description="How often it was taken; an interrupted job goes on from its checkpoint.")


class JobLog(BaseModel):
    """The last words of a job's training."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    log: str


class JobList(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]


class ModelVersion(BaseModel):
    """A version of the store; of one that can't be read only its name and `error` are known."""

    model_config = ConfigDict(extra="forbid")

    version: str
    active: bool
    serving: bool
    previous: bool = Field(description="Whether a rollback would activate it.")
    variants: list[str] = Field(description="The experiment's variants that are this version.")
    model: str | None = Field(description="The model's kind.")
    created_at: str | None = Field(description="ISO 8601, UTC.")
    base: str | None = Field(description="The version that it was retrained from.")
    n_users: int | None
    n_items: int | None
    n_interactions: int | None
    sequence: int | None = Field(description="The last interaction of the log that it was trained with.")
    metrics: dict[str, Any] = Field(description="Split → metric → value.")
    error: str | None = Field(description="Why it can't be used.")


class ModelDetail(ModelVersion):
    """A version with how it was made and what its report says."""

    data: dict[str, Any]
    configuration: dict[str, Any] = Field(description="Settings of the training.")
    training: dict[str, Any]
    report: dict[str, Any] | None = Field(description="What report.json holds: metrics, slices, curves; see docs.")


class ModelList(BaseModel):
    """Versions of the store, the oldest first."""

    models: list[ModelVersion]
    problem: str | None = Field(description="Why the active version is not served, null where it is.")


class Activated(BaseModel):
    """The version that is active and served now."""

    model_config = _example(version="v0002")

    version: str


class NewVariant(BaseModel):
    """A version for a share of the users."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=f"^{VARIANT_NAME}$", description=f"What replies and metrics call it; not {MAIN!r}.")
    version: Annotated[str, AfterValidator(plain_text)] = Field(min_length=1, max_length=256)
    share: float = Field(ge=0, le=1, description="Of the users, in steps of 0.0001; 0: for reads that name it alone.")


class NewExperiment(BaseModel):
    """Versions for shares of the users; the others get the active version."""

    model_config = _example(
        name="wider-vectors",
        variants=[
            {"name": "control", "version": "v0001", "share": 0.1},
            {"name": "b", "version": "v0002", "share": 0.1},
        ],
    )

    name: Annotated[str, AfterValidator(plain_text)] = Field(
        min_length=1, max_length=LONGEST_NAME, description="Another name deals the users anew."
    )
    variants: list[NewVariant] = Field(min_length=1, max_length=MOST_VARIANTS)

    @model_validator(mode="after")
    def _possible(self) -> NewExperiment:
        check_arms(self.name, [Arm(arm.name, arm.version, arm.share) for arm in self.variants])
        return self


class Variant(BaseModel):
    """A variant as the worker that answers serves it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    share: float
    served: bool = Field(description="Whether its users get it here; they get the active version where it is not.")
    problem: str | None = Field(description="Why it is not served, null where it is or is being loaded.")


class Experiment(BaseModel):
    """Which versions shares of the users get, the active one (`main`) first."""

    model_config = _example(
        name="wider-vectors",
        variants=[
            {"name": "main", "version": "v0001", "share": 0.9, "served": True, "problem": None},
            {"name": "b", "version": "v0002", "share": 0.1, "served": True, "problem": None},
        ],
    )

    name: str | None = Field(description="Null where everybody gets the active version.")
    variants: list[Variant]


class Digest(BaseModel):
    """The names of a worker's bits: equal at every worker at the same place of the log."""

    worker: int = Field(description="Process id of the worker that answered.")
    model_version: str
    refreshed_at: int
    readout: str = Field(description="SHA-256 of T and the items' vectors, made at refreshed_at.")
    sequence: int = Field(description="The place of the log where `state` was taken.")
    state: str = Field(description="SHA-256 of the settled attention state: neighbors, visited sets, S.")


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"]


class Ready(BaseModel):
    """Reads are answered; `degraded`: from memory alone, writes are refused, or not by the active version."""

    status: Literal["ready", "degraded"]
    model_version: str
    variants: dict[str, str] = Field(
        description="The versions of the experiment's variants that are served, by the variant's name."
    )
    sequence: int
    refreshed_at: int
    stale_nodes: int
    degraded: str | None = Field(description="Why the log can't be read or written at the moment, null where it can.")
    problem: str | None = Field(description="Why the active version is not served, null where it is.")
