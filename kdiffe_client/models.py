"""What goes in and out: plain dictionaries, typed.

Made from the service's OpenAPI description by `make client`: not to be changed by hand.
"""

from typing import Any, Literal, NotRequired, TypedDict

ErrorCode = Literal[
    "unknown_user",
    "unknown_item",
    "unknown_job",
    "unknown_version",
    "not_found",
    "method_not_allowed",
    "gone",
    "invalid_request",
    "request_too_large",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "job_running",
    "job_ended",
    "no_earlier_version",
    "unusable_version",
    "training_unavailable",
    "not_ready",
    "state_unavailable",
    "internal_error",
]


class Accepted(TypedDict):
    """What became of the interactions: they are on disk, and no list shows them from now on."""

    accepted: int
    duplicates: int
    sequence: int


class Activated(TypedDict):
    """The version that is active and served now."""

    version: str


class Bounds(TypedDict):
    """Bounds of a number."""

    gte: NotRequired[float | None]
    gt: NotRequired[float | None]
    lte: NotRequired[float | None]
    lt: NotRequired[float | None]


class Categories(TypedDict):
    """Conditions on an item's categories; all that are given must hold.

    Attributes:
        any: In one of these at least.
        all: In each of these.
        none: In none of these; an item without categories is.
    """

    any: NotRequired[list[str]]
    all: NotRequired[list[str]]
    none: NotRequired[list[str]]


class ContributionPart(TypedDict):
    """What one item of the user's adds to the score.

    Attributes:
        contribution: link + attention + direct.
        similarity: S(u, i): how much the random walks from both have visited alike.
        share: contribution / (|self| + Σ |contributions|).
    """

    item_id: str
    name: str | None
    contribution: float
    similarity: float
    link: float
    attention: float
    direct: float
    share: float


class Digest(TypedDict):
    """The names of a worker's bits: equal at every worker at the same place of the log.

    Attributes:
        worker: Process id of the worker that answered.
        readout: SHA-256 of T and the items' vectors, made at refreshed_at.
        sequence: The place of the log where `state` was taken.
        state: SHA-256 of the settled attention state: neighbors, visited sets, S.
    """

    worker: int
    model_version: str
    refreshed_at: int
    readout: str
    sequence: int
    state: str


class Entity(TypedDict):
    """A fact of the knowledge graph about an item."""

    relation: str
    entity: str


class EntityIn(TypedDict):
    """A fact about an item."""

    relation: str
    entity: str


class EntityPart(TypedDict):
    """What one entity of the item's knowledge graph adds."""

    relation: str
    entity: str
    attention: float
    contribution: float


class HistoryItem(TypedDict):
    """An item that a user has interacted with.

    Attributes:
        source: Whether the version was trained with it, or it came since.
        similarity: S(u, i): how much the random walks from both have visited alike.
        n_interactions: How many users have interacted with the item.
    """

    item_id: str
    name: str | None
    source: Literal["version", "log"]
    similarity: float
    n_interactions: int


class ItemOut(TypedDict):
    """What is known of an item.

    Attributes:
        record: As it was put; null where there is none.
        recorded_at: Sequence number of the record's entry in the log.
        withdrawn: Whether it is never recommended.
        in_version: Whether the served version was trained with it.
    """

    item_id: str
    name: str | None
    record: dict[str, Any] | None
    recorded_at: int | None
    withdrawn: bool
    in_version: bool
    has_vector: bool
    n_interactions: int
    model_version: str
    sequence: int


class ItemTaken(TypedDict):
    """An item was put or withdrawn.

    Attributes:
        accepted: False where the Idempotency-Key was used before, for this write or another: nothing changed.
        sequence: The log's last sequence number: lists that hold it hold the change.
        has_vector: Whether the served version can place it among the others.
        unknown: Relations, entities and modalities that the served version doesn't know.
    """

    item_id: str
    accepted: bool
    sequence: int
    has_vector: bool
    unknown: list[str]
    model_version: str


class JobAnswer(TypedDict):
    """A retrain job.

    Attributes:
        owner: The process that runs it.
        heartbeat_at: When its owner last said that it runs, seconds since 1970.
        trigger: Who asked for it.
        attempts: How often it was taken; an interrupted job goes on from its checkpoint.
    """

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
    owner: str
    heartbeat_at: float | None
    trigger: Literal["asked", "schedule", "interactions"]
    attempts: int


class JobLog(TypedDict):
    """The last words of a job's training."""

    job_id: str
    log: str


class Live(TypedDict):
    """The process answers."""

    status: Literal["live"]


class ModelDetail(TypedDict):
    """A version with how it was made and what its report says.

    Attributes:
        previous: Whether a rollback would activate it.
        variants: The experiment's variants that are this version.
        model: The model's kind.
        created_at: ISO 8601, UTC.
        base: The version that it was retrained from.
        sequence: The last interaction of the log that it was trained with.
        metrics: Split → metric → value.
        error: Why it can't be used.
        configuration: Settings of the training.
        report: What report.json holds: metrics, slices, curves; see docs.
    """

    version: str
    active: bool
    serving: bool
    previous: bool
    variants: list[str]
    model: str | None
    created_at: str | None
    base: str | None
    n_users: int | None
    n_items: int | None
    n_interactions: int | None
    sequence: int | None
    metrics: dict[str, Any]
    error: str | None
    data: dict[str, Any]
    configuration: dict[str, Any]
    training: dict[str, Any]
    report: dict[str, Any] | None


class ModelVersion(TypedDict):
    """A version of the store; of one that can't be read only its name and `error` are known.

    Attributes:
        previous: Whether a rollback would activate it.
        variants: The experiment's variants that are this version.
        model: The model's kind.
        created_at: ISO 8601, UTC.
        base: The version that it was retrained from.
        sequence: The last interaction of the log that it was trained with.
        metrics: Split → metric → value.
        error: Why it can't be used.
    """

    version: str
    active: bool
    serving: bool
    previous: bool
    variants: list[str]
    model: str | None
    created_at: str | None
    base: str | None
    n_users: int | None
    n_items: int | None
    n_interactions: int | None
    sequence: int | None
    metrics: dict[str, Any]
    error: str | None


class NamedItem(TypedDict):
    """An item."""

    item_id: str
    name: str | None


class NewInteraction(TypedDict):
    """What a user did.

    Attributes:
        user_id: External id of the user; an unknown one becomes a new user.
        item_id: External id of the item; an unknown one becomes a new item.
        timestamp: Seconds since 1970, not milliseconds; the time of arrival where it is missing.
        type: Kind of interaction; its weight (/admin/types) says how often training samples it.
        id: Idempotency key: sent again with the same id, it counts once.
    """

    user_id: str
    item_id: str
    timestamp: NotRequired[float | None]
    type: NotRequired[str]
    id: NotRequired[str | None]


class NewVariant(TypedDict):
    """A version for a share of the users.

    Attributes:
        name: What replies and metrics call it; not 'main'.
        share: Of the users, in steps of 0.0001; 0: for reads that name it alone.
    """

    name: str
    version: str
    share: float


class PathUser(TypedDict):
    """A user on the way: met the contributing item, and perhaps the explained one. The explained user is one, too.

    Attributes:
        user_id: Not to be shown to other users.
        similarity: S(i, m) between the contributing item and this user.
        met_item: Whether this user has met the explained item.
    """

    user_id: str
    amount: float
    similarity: float
    met_item: bool


class RankedItem(TypedDict):
    """An item with a score."""

    item_id: str
    name: str | None
    score: float


class Ready(TypedDict):
    """Reads are answered; `degraded`: from memory alone, writes are refused, or not by the active version.

    Attributes:
        variants: The versions of the experiment's variants that are served, by the variant's name.
        degraded: Why the log can't be read or written at the moment, null where it can.
        problem: Why the active version is not served, null where it is.
    """

    status: Literal["ready", "degraded"]
    model_version: str
    variants: dict[str, str]
    sequence: int
    refreshed_at: int
    stale_nodes: int
    degraded: str | None
    problem: str | None


class RecommendedItem(TypedDict):
    """An item of a list.

    Attributes:
        score: Higher is better; a popular item's score is its number of interactions.
        strategy: model: trained with the user; fold_in: the user is newer; popular: the most interactions.
    """

    item_id: str
    score: float
    strategy: Literal["model", "fold_in", "popular"]


class RetrainAccepted(TypedDict):
    """The job that was started."""

    job_id: str


class ScoredItem(TypedDict):
    """An item and a number."""

    item_id: str
    score: float


class SharingItem(TypedDict):
    """One of the user's items that has the entity, too.

    Attributes:
        contribution: What it adds by way of the entity: a piece of its link + attention.
    """

    item_id: str
    name: str | None
    contribution: float


class TypeWeight(TypedDict):
    """How often the loss samples interactions of a type.

    Attributes:
        weight: Beside 1; it counts from the next training.
    """

    weight: float


class TypeWeights(TypedDict):
    """Weights of the interaction types.

    Attributes:
        other: The weight of every type that was given none.
    """

    types: dict[str, float]
    other: float


class UserErased(TypedDict):
    """A user was erased.

    Attributes:
        sequence: The log's last sequence number: lists that hold it know nothing of the user.
        versions: Versions that still hold the user, until they are pruned.
    """

    user_id: str
    sequence: int
    versions: list[str]


class UserIn(TypedDict):
    """What is to be known of a user, in the place of all that was known before.

    Attributes:
        attributes: Name → text, number, truth value, or a list of these.
    """

    attributes: dict[str, bool | int | float | str | list[bool | int | float | str]]


class UserOut(TypedDict):
    """What is known of a user.

    Attributes:
        record: As it was put; null where there is none.
        recorded_at: Sequence number of the record's entry in the log.
        in_version: Whether the served version was trained with the user.
    """

    user_id: str
    record: dict[str, Any] | None
    recorded_at: int | None
    n_interactions: int
    in_version: bool
    model_version: str
    sequence: int


class UserTaken(TypedDict):
    """A user's record was put.

    Attributes:
        accepted: False where the Idempotency-Key was used before, for this write or another: nothing changed.
        sequence: The log's last sequence number: what holds it holds the record.
    """

    user_id: str
    accepted: bool
    sequence: int


class Variant(TypedDict):
    """A variant as the worker that answers serves it.

    Attributes:
        served: Whether its users get it here; they get the active version where it is not.
        problem: Why it is not served, null where it is or is being loaded.
    """

    name: str
    version: str
    share: float
    served: bool
    problem: str | None


class Addition(TypedDict):
    """Interactions that would bring the item into the list; none of them can be left out. Verified likewise."""

    found: bool
    items: list[NamedItem]
    score: float | None
    rank: int | None
    tried: int
    most: int


class BoostIn(TypedDict):
    """What is added to the score of the items for which all conditions hold.

    Attributes:
        attributes: Attribute → bounds; an item without the attribute is left out.
        add: In units of the score; negative to push down. Several boosts add up.
        items: These items; all where it is missing.
    """

    categories: NotRequired[Categories]
    attributes: NotRequired[dict[str, Bounds]]
    add: float
    items: NotRequired[list[str] | None]


class Counterfactual(TypedDict):
    """The user's own interactions without which the item leaves the list; none of them can be left out.

    Verified by removing them from a copy (the user's row exact, T and items as in force) and ranking again. What is
    removed stays out of the list.

    Attributes:
        why: Why there is none: every set was tried (none_exists), or the search met its limit (none_found).
        score: The item's score without them; null where the list becomes popular items.
        rank: The item's rank without them.
        replaced_by: What comes into the list, best first, 5 at most.
        tried: How many removals were tried.
        most: How many interactions a set may have.
    """

    k: int
    found: bool
    why: Literal["not_in_list", "none_exists", "none_found"] | None
    removed: list[NamedItem]
    score: float | None
    rank: int | None
    replaced_by: list[RankedItem]
    tried: int
    most: int


class ErrorBody(TypedDict):
    """What went wrong."""

    code: ErrorCode
    message: str
    request_id: str


class Experiment(TypedDict):
    """Which versions shares of the users get, the active one (`main`) first.

    Attributes:
        name: Null where everybody gets the active version.
    """

    name: str | None
    variants: list[Variant]


class ExplainIn(TypedDict):
    """An explanation about a list with conditions.

    Attributes:
        attributes: Attribute → bounds; an item without the attribute is left out.
        k: Length of the list.
        most: How many interactions a counterfactual may name.
        include: These items alone.
        exclude: Not these items.
    """

    categories: NotRequired[Categories]
    attributes: NotRequired[dict[str, Bounds]]
    parts: NotRequired[list[Literal["paths", "reasons", "counterfactual", "why_not"]]]
    k: NotRequired[int]
    most: NotRequired[int]
    include: NotRequired[list[str] | None]
    exclude: NotRequired[list[str]]


class History(TypedDict):
    """What a user has interacted with: what came since the version first, then by similarity.

    Attributes:
        in_version: Whether the version was trained with the user.
        n_items: Of the whole history.
        variant: The user's in the experiment; `main` for the active version.
    """

    user_id: str
    in_version: bool
    n_items: int
    items: list[HistoryItem]
    model_version: str
    variant: str
    sequence: int
    refreshed_at: int


class Item(TypedDict):
    """What is known of an item.

    Attributes:
        in_version: Whether the version was trained with the item.
        n_interactions: How many users have interacted with it.
    """

    item_id: str
    name: str | None
    in_version: bool
    n_interactions: int
    entities: list[Entity]


class ItemIn(TypedDict):
    """What is known of an item. It takes the place of what was known before.

    Attributes:
        name: What to show.
        categories: What filters and boosts of POST /recommend ask for.
        attributes: Numbers for ranges; a time as seconds since 1970.
        entities: Facts of the knowledge graph: they place an item that nobody has touched yet.
        features: Modality → feature vector, made as those that the model was trained with.
    """

    name: NotRequired[str | None]
    categories: NotRequired[list[str]]
    attributes: NotRequired[dict[str, float]]
    entities: NotRequired[list[EntityIn]]
    features: NotRequired[dict[str, list[float]]]


class ItemList(TypedDict):
    """Items without a user."""

    items: list[ScoredItem]
    model_version: str
    sequence: int
    refreshed_at: int


class ItemParts(TypedDict):
    """Z_u · Z_v by the item's side: own + Σ entities + rest = sum."""

    view: str
    own: float
    entities: list[EntityPart]
    rest: float
    sum: float


class ItemPaths(TypedDict):
    """What a contribution's link + attention is made of: own + Σ users + rest = sum.

    Attributes:
        own: By the contributing item's own vector: user → item ⇢ explained item.
        users: user → item → this user ⇢ explained item; the largest first, 5 at most.
        n_users: How many such users there are.
        rest: The other users.
        sum: link + attention of this contribution.
    """

    item_id: str
    name: str | None
    own: float
    users: list[PathUser]
    n_users: int
    rest: float
    sum: float


class JobList(TypedDict):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]


class ListPage(TypedDict):
    """A page of a list.

    Attributes:
        user_id: null for a session.
        cursor: For the next page; null where the list ends.
        sequence: The last interaction of the log that the user's row holds.
        refreshed_at: The last interaction of the log that T and the item vectors hold.
        recommendation_id: For /explain; null for a session, which nobody can ask about.
        index: The backend that searched; empty where none was asked.
        variant: The user's in the experiment; `main` for the active version.
    """

    user_id: str | None
    items: list[RecommendedItem]
    cursor: str | None
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str | None
    index: str
    variant: str


class ModelList(TypedDict):
    """Versions of the store, the oldest first.

    Attributes:
        problem: Why the active version is not served, null where it is.
    """

    models: list[ModelVersion]
    problem: str | None


class NewExperiment(TypedDict):
    """Versions for shares of the users; the others get the active version.

    Attributes:
        name: Another name deals the users anew.
    """

    name: str
    variants: list[NewVariant]


class NewInteractions(TypedDict):
    """Several interactions at once."""

    interactions: list[NewInteraction]


class Reason(TypedDict):
    """An entity of the explained item: Σ items + others = contribution.

    Attributes:
        name: The entity's id, less its relation.
        items: The user's items that share it; the largest first, 5 at most.
        n_items: How many such items there are.
        others: Everything else that the user adds by way of it.
    """

    relation: str
    entity: str
    name: str
    contribution: float
    items: list[SharingItem]
    n_items: int
    others: float


class Recommendations(TypedDict):
    """What a user is recommended.

    Attributes:
        sequence: The last interaction of the log that the user's row holds.
        refreshed_at: The last interaction of the log that T and the item vectors hold.
        recommendation_id: Names this moment: /explain takes it and explains what was served.
        index: The backend that searched; empty where none was asked.
        variant: The user's in the experiment; `main` for the active version.
    """

    user_id: str
    items: list[RecommendedItem]
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str
    index: str
    variant: str


class SimilarItems(TypedDict):
    """Items near an item; score is the cosine.

    Attributes:
        variant: The variant whose version answered: `main` unless the request names another.
    """

    items: list[ScoredItem]
    model_version: str
    sequence: int
    refreshed_at: int
    item_id: str
    variant: str


class ErrorAnswer(TypedDict):
    """Every error's answer."""

    error: ErrorBody


class Items(TypedDict):
    """Items that were asked for, each once, and the ids that are unknown."""

    items: list[Item]
    unknown: list[str]
    model_version: str
    sequence: int
    refreshed_at: int


class Lists(TypedDict):
    """A list for each user, in the order of the request.

    Attributes:
        unknown_items: Items that the request names and nobody knows.
    """

    results: list[ListPage]
    unknown_items: list[str]


class Paths(TypedDict):
    """What is behind link and attention: Σ items + rest = sum.

    Attributes:
        items: The largest first, 10 at most.
        rest: The other contributions.
        sum: Σ (link + attention) over all contributions.
    """

    items: list[ItemPaths]
    rest: float
    sum: float


class Reasons(TypedDict):
    """The score by the item's side: own + Σ entities + rest + direct = sum.

    Attributes:
        own: By the item's own vector.
        entities: The largest first.
        rest: By what propagation and constants add to the item's vector.
        direct: Σ direct over all contributions.
        sum: The score.
    """

    view: str
    own: float
    entities: list[Reason]
    rest: float
    direct: float
    sum: float


class RecommendIn(TypedDict):
    """Lists for several users, or for an anonymous session.

    Attributes:
        attributes: Attribute → bounds; an item without the attribute is left out.
        user_ids: Users, each once.
        session: Item ids instead of users: what a new user with these interactions gets. Nothing is stored.
        k: Items of each list.
        include: These items alone.
        exclude: Not these items.
        diversity: Weight of unlikeness to the items before (maximal marginal relevance); 0 orders by score.
        min_score: Least score; such a list is not filled up with popular items, whose scores are counts.
        cursor: Where the list goes on: from the page before, for one user or session.
    """

    categories: NotRequired[Categories]
    attributes: NotRequired[dict[str, Bounds]]
    user_ids: NotRequired[list[str] | None]
    session: NotRequired[list[str] | None]
    k: NotRequired[int]
    include: NotRequired[list[str] | None]
    exclude: NotRequired[list[str]]
    boosts: NotRequired[list[BoostIn]]
    diversity: NotRequired[float]
    min_score: NotRequired[float | None]
    cursor: NotRequired[str | None]


class WhyNot(TypedDict):
    """Why the item is not among the k best.

    Attributes:
        rules: What left it out: outranked: others score higher; seen: the user has met it; withdrawn: it is never
            recommended; filtered: a condition of the request; no_vector: nothing is known of it yet;
            no_evidence: the list is the popular items.
        filters: The conditions of the request that don't hold for it.
        rank: Among what the list may show; the one that it would have where it may not.
        cutoff: The k-th score.
        margin: score - cutoff.
        addition: Null unless it was outranked alone.
    """

    k: int
    in_list: bool
    rules: list[Literal["outranked", "seen", "withdrawn", "filtered", "no_vector", "no_evidence"]]
    filters: list[str]
    rank: int | None
    cutoff: float | None
    margin: float | None
    addition: Addition | None


class Explanation(TypedDict):
    """A served score, taken apart: score = self + Σ contributions.

    Attributes:
        score: As served; 0 for an item without a vector.
        strategy: How the item stands in this list; popular ones don't rank by this score.
        rank: Among the unseen items; null for a seen item or one without a vector.
        self: What the user's own vector adds.
        contributions: The largest magnitude first.
        sum: self + Σ contributions, in double precision.
        additivity_error: |score - sum| / (|self| + Σ |contributions|).
        sentence: The same in plain words.
        paths: Null unless asked for, as the following ones.
        reasons: Null, too, where the version has no knowledge graph.
        recommendation_id: Names the moment that is explained.
        variant: As in lists; null where a recommendation_id says what is explained.
    """

    user_id: str
    item_id: str
    name: str | None
    score: float
    strategy: Literal["model", "fold_in", "popular"]
    rank: int | None
    self: float
    self_share: float
    contributions: list[ContributionPart]
    sum: float
    additivity_error: float
    item_parts: ItemParts | None
    sentence: str
    paths: Paths | None
    reasons: Reasons | None
    counterfactual: Counterfactual | None
    why_not: WhyNot | None
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str
    variant: str | None
