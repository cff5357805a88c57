"""What the service tells about itself: metrics for Prometheus, and logs as JSON lines. No secret is ever logged."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.errors import NotReadyError
from service.live.registry import Registry
from service.recommendation.recommender import Strategy
from service.security.api_key import PREFIX
from service.state.port import UNFINISHED, Job, JobState
from service.workers import METRICS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; a list takes about a millisecond, an interaction that waits for a refresh may take seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# How much waits, by the queue's name.
Queues = Mapping[str, Callable[[], int]]
WAITING = "What waits in the fullest worker: entries to be applied or settled, requests to be written, jobs."
# How a job can have ended.
ENDED = [state for state in get_args(JobState) if state not in UNFINISHED]
# Seconds between a worker's notes of its model's condition for the others.
NOTE_INTERVAL = 1.0
SECRET_WORDS = ("authorization", "admin_key", "api_key", "password", "secret", "token", "cookie")
# The secret part of an API key (service/security/api_key.py).
KEY_START = f"{PREFIX}_"
KEY_TEXT = re.compile(rf"({PREFIX}_[0-9a-f]+_)[\w-]+")


class Telemetry:
    """The service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kdiffe_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "kdiffe_request_seconds", "Seconds until the answer.", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self._recommended = Counter(
            "kdiffe_recommended_items",
            "Recommended items by strategy, version and variant of the experiment.",
            ["strategy", "version", "variant"],
            registry=self.registry,
        )
        self._lists = Counter(
            "kdiffe_lists",
            "Lists by version, variant of the experiment and the index that answered (cache: none, it was kept).",
            ["version", "variant", "backend"],
            registry=self.registry,
        )
        self._made: dict[tuple[str, str, str], Counter] = {}
        self._brought: dict[tuple[str, str, str], Counter] = {}
        self._interactions = Counter(
            "kdiffe_interactions", "Interactions by what became of them.", ["outcome"], registry=self.registry
        )
        self._accepted = self._interactions.labels("accepted")
        self._duplicates = self._interactions.labels("duplicate")
        self._swaps = Counter("kdiffe_model_swaps", "Versions put in force.", registry=self.registry)
        # Looking a counter up by its labels takes longer than counting.
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._job_running = Gauge(
            "kdiffe_job_running",
            "1 while a retrain job runs, wherever it does.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._job_ended = Gauge(
            "kdiffe_job_ended_timestamp_seconds",
            "When the last retrain job that ended so did, wherever it ran; 0 where none of the latest has.",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._last_ends: dict[str, float] = dict.fromkeys(ENDED, 0.0)
        # Where several workers serve, whichever is asked answers for all of them.
        self._shared = os.environ.get(METRICS)
        self._notes: _Notes | None = None

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = (method, route, status)
        found = self._counted.get(key)
        if found is None:
            found = (self._requests.labels(method, route, str(status)), self._seconds.labels(route))
            self._counted[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def recommended(self, strategies: Mapping[Strategy, int], version: str, variant: str, backend: str) -> None:
        """Count a list.

        Args:
            strategies: how many items each strategy has brought.
            version: what has made it.
            variant: the user's in the experiment, or `forced` where the request named one.
            backend: the index that has answered, or `cache`.
        """
        made = self._made.get((version, variant, backend))
        if made is None:
            made = self._made[version, variant, backend] = self._lists.labels(version, variant, backend)
        made.inc()
        for strategy, count in strategies.items():
            key = (strategy, version, variant)
            brought = self._brought.get(key)
            if brought is None:
                brought = self._brought[key] = self._recommended.labels(*key)
            brought.inc(count)

    def interactions(self, accepted: int, duplicates: int) -> None:
        """Count what became of a batch."""
        self._accepted.inc(accepted)
        self._duplicates.inc(duplicates)

    def jobs(self, latest: Sequence[Job]) -> None:
        """Tell how the state's latest jobs stand. Whoever runs them, every service on the state tells the same."""
        self._job_running.set(any(job.state == "running" for job in latest))
        for job in latest:
            if job.state in self._last_ends:
                self._last_ends[job.state] = max(self._last_ends[job.state], job.finished_at or 0.0)
        for state, ended in self._last_ends.items():
            self._job_ended.labels(state).set(ended)

    def swapped(self) -> None:
        """Count a swap."""
        self._swaps.inc()

    def watch(
        self, registry: Registry, queues: Queues | None = None, *, writes_fail: Callable[[], bool] = lambda: False
    ) -> None:
        """Report the served model's condition, and how much waits, whenever the metrics are read.

        Args:
            registry: the serving side.
            queues: name of a queue → how much waits in it.
            writes_fail: whether the state can't be written.
        """
        found = partial(conditions, registry, queues or {}, writes_fail)
        if self._shared is None:
            self.registry.register(_ModelCollector(found))
        else:
            self._notes = _Notes(found, self.registry)
            self._notes.start()

    def close(self) -> None:
        """Stop reporting."""
        if self._notes is not None:
            self._notes.stop()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, of all workers of this machine together."""
        if self._shared is None:
            return generate_latest(self.registry)
        if self._notes is not None:
            self._notes.take()
        together = CollectorRegistry()
        MultiProcessCollector(together, self._shared)  # type: ignore[no-untyped-call]
        return generate_latest(together)


class Condition(NamedTuple):
    """A fact about the served model.

    Attributes:
        name: of the metric.
        text: its help.
        value: now.
        together: how the workers' values make one.
        labels: names and values.
    """

    name: str
    text: str
    value: float
    together: Literal["livemin", "livemax", "livesum"]
    labels: tuple[tuple[str, str], ...] = ()


def conditions(registry: Registry, queues: Queues, writes_fail: Callable[[], bool]) -> list[Condition]:
    """What is to be told of the served model and of what waits now."""
    return [
        *_model_conditions(registry, writes_fail),
        *(
            Condition("kdiffe_queue_depth", WAITING, waiting(), "livemax", _queue(name))
            for name, waiting in queues.items()
        ),
    ]


def _queue(name: str) -> tuple[tuple[str, str], ...]:
    return (("queue", name),)


def _model_conditions(registry: Registry, writes_fail: Callable[[], bool]) -> list[Condition]:
    text = "1 while a model is served, from memory alone where kdiffe_degraded is 1."
    try:
        model = registry.model
    except NotReadyError:
        return [Condition("kdiffe_ready", text, 0, "livemin")]
    version = (("version", model.version), ("model", model.artifact.manifest.model))
    lag, index, withdrawn = model.settle_lag, model.readout.index, model.metadata.withdrawn
    ends, applied, settled = registry.log_ends_at, model.sequence, model.settled_sequence
    shared, own = model.state_nbytes
    return [
        Condition("kdiffe_ready", text, registry.failure is None or registry.degraded is not None, "livemin"),
        Condition(
            "kdiffe_degraded",
            "1 while the log can't be read or written.",
            registry.degraded is not None or writes_fail(),
            "livemax",
        ),
        Condition(
            "kdiffe_standing_in",
            "1 while the active version can't be served and another one is.",
            registry.standing_in is not None,
            "livemax",
        ),
        Condition("kdiffe_model_info", "Workers that serve the version.", 1, "livesum", version),
        *(
            Condition(
                "kdiffe_variant_share",
                "Share of the users who get the variant of the experiment.",
                share,
                "livemax",
                (("variant", name), ("version", version)),
            )
            for name, version, share in registry.served.shares()
        ),
        Condition("kdiffe_state_sequence", "Last interaction of the log that is known of.", ends, "livemax"),
        Condition("kdiffe_queue_depth", WAITING, max(0, ends - applied), "livemax", _queue("apply")),
        Condition("kdiffe_queue_depth", WAITING, max(0, applied - settled), "livemax", _queue("settle")),
        Condition("kdiffe_applied_sequence", "Last interaction of the log that is applied.", applied, "livemin"),
        Condition(
            "kdiffe_refreshed_sequence", "Sequence number of the last refresh.", model.readout.refreshed_at, "livemin"
        ),
        Condition("kdiffe_refreshes", "Refreshes since the version was loaded.", model.refreshes, "livemax"),
        Condition("kdiffe_settled_sequence", "Last interaction of the log that is settled.", settled, "livemin"),
        Condition("kdiffe_settle_lag_seconds", "Age of the oldest interaction that is not settled.", lag, "livemax"),
        Condition("kdiffe_stale_nodes", "Nodes that wait to be settled.", model.n_stale, "livemax"),
        Condition("kdiffe_state_shared_bytes", "S and its graph: bytes in mapped files.", shared, "livemax"),
        Condition("kdiffe_state_own_bytes", "S and its graph: bytes of each process's own.", own, "livesum"),
        Condition("kdiffe_users", "Known users.", len(model.users), "livemin"),
        Condition("kdiffe_items", "Known items.", len(model.items), "livemin"),
        Condition("kdiffe_withdrawn_items", "Items that are never recommended.", len(withdrawn), "livemax"),
        Condition(
            "kdiffe_index_info", "Workers whose searches this backend answers.", 1, "livesum", (("index", index.name),)
        ),
        Condition("kdiffe_index_recall", "Recall@20 of the index when it was loaded.", model.index_recall, "livemin"),
        Condition("kdiffe_workers", "Processes that serve on this machine.", 1, "livesum"),
    ]


class _ModelCollector(Collector):
    """The served model's condition, read at the time of the scrape."""

    def __init__(self, found: Callable[[], list[Condition]]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """One gauge for each name."""
        gauges: dict[str, GaugeMetricFamily] = {}
        for condition in self._found():
            gauge = gauges.get(condition.name)
            if gauge is None:
                gauge = GaugeMetricFamily(condition.name, condition.text, labels=[name for name, _ in condition.labels])
                gauges[condition.name] = gauge
            gauge.add_metric([value for _, value in condition.labels], condition.value)
        yield from gauges.values()


class _Notes:
    """Notes the served model's condition where the other workers find it: at every scrape, and every second."""

    def __init__(self, found: Callable[[], list[Condition]], metrics: CollectorRegistry) -> None:
        self._found = found
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kdiffe-notes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(NOTE_INTERVAL):
            self.take()

    def take(self) -> None:
        """Note what is so now; a version that is no longer served counts 0."""
        with self._lock:
            found = {(c.name, c.labels): c for c in self._found()}
            for key, condition in found.items():
                if key not in self._told:
                    self._told[key] = self._gauge(condition)
                self._told[key].set(condition.value)
            for (name, labels), gauge in self._told.items():
                if labels and (name, labels) not in found:
                    gauge.set(0)

    def _gauge(self, condition: Condition) -> Gauge:
        names = [name for name, _ in condition.labels]
        gauge = self._gauges.get(condition.name)
        if gauge is None:
            gauge = Gauge(
                condition.name,
                condition.text,
                names,
                registry=self._metrics,
                multiprocess_mode=condition.together,
            )
            self._gauges[condition.name] = gauge
        return gauge.labels(*(value for _, value in condition.labels)) if names else gauge


def without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank every field whose name says that it is a secret, and every API key in a text."""
    for name, value in event.items():
        event[name] = _blanked(name, value)
    return event


def _blanked(name: object, value: Any) -> Any:
    """A value without secrets, however deep they lie in it."""
    if any(word in str(name).lower() for word in SECRET_WORDS):
        return "***"
    if isinstance(value, str):
        return KEY_TEXT.sub(r"\1***", value) if KEY_START in value else value
    if isinstance(value, Mapping):
        return {key: _blanked(key, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_blanked("", one) for one in value]
    return value


def configure_logging(level: str) -> None:
    """Log JSON lines to standard error, other libraries' logs in the same form. Called by the command alone."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            without_secrets,  # of all that is written, a traceback among it
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries' own chatter stays out below a warning.
    for name in ("numba", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
