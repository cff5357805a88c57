"""What a report shows: versions of a store, and experiments from records of runs, as a page (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from training.experiments.pairs import as_one_family
from training.labels import NAMES, SLICE_NAMES, metric_label
from training.page import Page, Plot, Section, Table, Text
from training.plots import Line, bars_figure, lines_figure, training_figure
from training.results import Record, latest
from training.significance import mean_and_spread

MAIN = ("recall@20", "ndcg@20")
NOTHING = "–"

# Kinds of records in the order of their sections. Kinds that are missing here belong to one of these.
_TITLES: Mapping[str, str] = {
    "comparison": "Comparison",
    "ablation": "Ablation",
    "sweep": "Sweep",
    "timing": "Time",
    "tuning": "Tuning",
}
# Trials of a tuning that are shown, the best first.
_TRIALS = 10

Item = TypeVar("Item")


@dataclass(frozen=True)
class Version:
    """A published version as a report shows it.

    Attributes:
        name: `v0001`.
        created_at: when it was published.
        configuration: its settings, section → name → value.
        report: what its `report.json` holds.
        selected_as: the version whose figures a retrained one carries, empty for its own.
    """

    name: str
    created_at: str
    configuration: Mapping[str, Any]
    report: Mapping[str, Any]
    selected_as: str = ""


def report_page(versions: Sequence[Version], records: Iterable[Record] = ()) -> Page:
    """The page of some versions, side by side, and of some records; of equal runs the last record counts."""
    shown = latest(records)
    sections = [*(_version_sections(versions) if versions else []), *_result_sections(shown)]
    parts = []
    if versions:
        parts.append(
            "Figures of versions are of the validation split, on which they were selected; kdiffe evaluate has the "
            "test split's."
        )
    if shown:
        parts.append(
            "Experiments: means over seeds ± sample standard deviation. Each says on which split it was measured."
        )
    names = [version.name for version in versions] or [f"Experiments on {', '.join(_unique(r.data for r in shown))}"]
    of = _unique(str((version.report.get("data") or {}).get("name", "")) for version in versions)
    title = ", ".join(names) + (f" on {', '.join(of)}" if any(of) else "")
    return Page(title, " ".join(parts), sections)


# ---- versions --------------------------------------------------------------------------------------------------------


def _version_sections(versions: Sequence[Version]) -> list[Section]:
    sections = [Section("Model", [_model_facts(versions)])]
    measured = [version for version in versions if version.report.get("validation")]
    if measured:
        about = _who(measured)
        if len({_at("data", "fingerprint")(version) for version in measured}) > 1:
            about.append("The data differ, splits included: figures of different data can't be compared.")
        sections.append(Section("Validation", [*map(Text, about), _metrics(measured)]))
        sections.append(Section("Slices", [part for version in measured for part in _slices(version)]))
    curves = [part for version in versions for part in _curves(version)]
    if curves:
        sections.append(Section("Training", curves))
    sections.append(Section("Explanations", [Text(_WHAT_SHARES_ARE), _shares(versions)]))
    sections.append(Section("Data and machine", [_data(versions), _machine(versions)]))
    return [*sections, Section("Settings", _settings(versions))]


Row = tuple[str, Callable[[Version], str]]


def _facts(versions: Sequence[Version], rows: Sequence[Row], caption: str = "") -> Table:
    """A row for each fact, a column for each version; facts that no version has are left out."""
    cells = [(label, *(fact(version) for version in versions)) for label, fact in rows]
    return Table(
        ("", *(v.name for v in versions)), [row for row in cells if any(c != NOTHING for c in row[1:])], caption
    )


def _at(*path: str, form: Callable[[Any], str] = str) -> Callable[[Version], str]:
    """A value of the report, `–` where it is missing."""

    def value(version: Version) -> str:
        found: Any = version.report
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return NOTHING if found is None else form(found)

    return value


def _model_facts(versions: Sequence[Version]) -> Table:
    served, bare = ("validation", "served"), ("validation", "without_table")
    return _facts(
        versions,
        [
            ("model", _at("model", "kind")),
            ("data set", _at("data", "name")),
            ("published", lambda version: version.created_at),
            ("figures are those of", lambda version: version.selected_as or NOTHING),
            ("kept epoch", _at("curve", "best_epoch")),
            ("epochs of the refit", _at("refit", "curve", "best_epoch")),
            *((f"validation {metric_label(metric)}", _at(*served, metric, form=_figure)) for metric in MAIN),
            *((f"the same without B, {metric_label(metric)}", _at(*bare, metric, form=_figure)) for metric in MAIN),
            ("self share of explanations", _at("explanations", "self", form=_percent)),
            ("weight of B", _at("model", "table_weight", form=lambda v: f"{v:.4g}")),
            ("entries of B", _at("model", "table_entries", form=_count)),
            ("views", _at("model", "views", form=", ".join)),
            ("width", _at("model", "width")),
            ("triplets used", _at("model", "triplets", form=_count)),
            ("entities used", _at("model", "entities", form=_count)),
            ("settings", _at("model", "settings_digest", form=lambda v: str(v)[:12])),
        ],
    )


def _who(versions: Sequence[Version]) -> list[str]:
    """Whom the figures are of, a sentence for each version, or one for all that agree."""
    sentences = {}
    for version in versions:
        found = version.report["validation"]
        served = found["served"]
        sentences[version.name] = (
            f"{served['n_users']:,} users, {served['n_interactions']:,} interactions of the validation split; all "
            f"items ranked but those of {', '.join(found['masked'])}."
        )
    if len(set(sentences.values())) == 1:
        return [next(iter(sentences.values()))]
    return [f"{name}: {sentence}" for name, sentence in sentences.items()]


def _metrics(versions: Sequence[Version]) -> Table:
    served = [version.report["validation"]["served"] for version in versions]
    bare = [version.report["validation"]["without_table"] for version in versions]
    columns = [""]
    for version, without in zip(versions, bare, strict=True):
        columns += [version.name, "± s.e.", *([] if without is None else [f"{version.name}, B = 0"])]
    rows = []
    for key in _keys(served):
        row = [metric_label(key)]
        for figures, without in zip(served, bare, strict=True):
            row += [_figure(figures.get(key)), _figure(figures["standard_errors"].get(key))]
            row += [] if without is None else [_figure(without.get(key))]
        rows.append(row)
    return Table(columns, rows, "± s.e.: standard error over users.")


def _keys(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of some evaluations, by name, then by length."""
    keys = {key for found in evaluations for key in found if key.partition("@")[0] in NAMES}
    order = list(NAMES)
    return sorted(keys, key=lambda key: (order.index(key.partition("@")[0]), int(key.partition("@")[2])))


def _slices(version: Version) -> list[Table | Text]:
    found = version.report["validation"]
    bare = found["without_table"]
    columns = ["slice", "users", "interactions", *(metric_label(metric) for metric in MAIN)]
    columns += [] if bare is None else [f"{metric_label(metric)}, B = 0" for metric in MAIN]
    rows, sentences = [], []
    for name, part in found["served"]["slices"].items():
        row = [SLICE_NAMES.get(name, name), _count(part["n_users"]), _count(part["n_interactions"])]
        row += [_figure(part["metrics"].get(metric)) for metric in MAIN]
        row += [] if bare is None else [_figure(bare["slices"][name]["metrics"].get(metric)) for metric in MAIN]
        rows.append((name, row))
        if name.startswith("items"):
            sentences.append(f"{SLICE_NAMES.get(name, name).capitalize()}: {part['what']}")
    # JSON keeps keys sorted; readers want them as they are counted.
    order = [name for name in SLICE_NAMES if name in dict(rows)]
    order += [name for name, _ in rows if name not in order]
    ordered = [dict(rows)[name] for name in order]
    return [Table(columns, ordered, f"{version.name}, by train interactions"), Text(" ".join(sentences))]


def _curves(version: Version) -> list[Plot | Table]:
    curve = version.report.get("curve")
    parts: list[Plot | Table] = []
    if curve and curve["epochs"]:
        about = f"{version.name}: validation metrics and loss by epoch; epoch {curve['best_epoch']} was kept."
        rows = [
            (
                str(epoch["epoch"]),
                f"{epoch['loss']:.5g}",
                *(_figure(epoch["metrics"].get(metric)) for metric in MAIN),
                f"{epoch['seconds']:.2f}",
            )
            for epoch in curve["epochs"]
            if epoch["metrics"] or epoch["epoch"] == curve["best_epoch"]
        ]
        columns = ("epoch", "loss", *(metric_label(metric) for metric in MAIN), "seconds")
        caption = f"{version.name}: the epochs that were evaluated (without B)"
        parts += [Plot(training_figure(curve), about), Table(columns, rows, caption, folded=True)]
    refit = version.report.get("refit")
    if refit and refit["curve"]["epochs"]:
        parts.append(Plot(training_figure(refit["curve"]), f"{version.name}: loss of the refit by epoch."))
    return parts


_WHAT_SHARES_ARE = (
    "How recommendations are made up, mean shares of |self| + Σ|contributions| over sampled recommendations: the self "
    "term, and of the user's own items what a link, attention (S) and B contribute."
)


def _shares(versions: Sequence[Version]) -> Table:
    rows: list[Row] = [
        (label, _at("explanations", name, form=_percent))
        for name, label in (("self", "self"), ("link", "link"), ("attention", "attention"), ("direct", "direct (B)"))
    ]
    rows += [
        ("recommendations", _at("explanations", "n_recommendations", form=_count)),
        ("of users", _at("explanations", "n_users", form=_count)),
        ("largest additivity error", _at("explanations", "largest_additivity_error", form=lambda v: f"{v:.1e}")),
    ]
    return _facts(versions, rows)


def _data(versions: Sequence[Version]) -> Table:
    return _facts(
        versions,
        [
            ("users", _at("data", "n_users", form=_count)),
            ("items", _at("data", "n_items", form=_count)),
            *(
                (f"{split} interactions", _at("data", "interactions", split, form=_count))
                for split in ("train", "valid", "test")
            ),
            ("interactions of the refit", _at("refit", "data", "interactions", "train", form=_count)),
            ("density", _at("data", "density", form=lambda v: f"{v:.3e}")),
            *((name, _at("data", name, form=_count)) for name in ("triplets", "entities", "relations")),
            ("items in the graph", _at("data", "items_in_graph", form=_count)),
            ("items with features", _at("data", "items_with_features", form=_count)),
            ("modalities", _at("data", "modalities", form=lambda m: ", ".join(f"{k} ({w})" for k, w in m.items()))),
            ("fingerprint", _at("data", "fingerprint", form=lambda v: str(v)[:12])),
        ],
        "Data",
    )


def _machine(versions: Sequence[Version]) -> Table:
    return _facts(
        versions,
        [
            ("processor", _at("machine", "cpu")),
            ("cores", _at("machine", "cores")),
            ("threads", _at("machine", "threads")),
            ("GPU", _at("machine", "gpu")),
            ("device", _at("machine", "device")),
            ("seconds", _at("machine", "seconds", form=lambda v: f"{v:,.1f}")),
            ("peak memory", _at("machine", "peak_memory_bytes", form=_memory)),
            ("peak memory of the GPU", _at("machine", "gpu_peak_memory_bytes", form=_memory)),
            *((name, _at("machine", name)) for name in ("torch", "python", "kdiffe")),
        ],
        "Machine",
    )


def _settings(versions: Sequence[Version]) -> list[Table | Text]:
    flat = [
        {
            f"{section}.{name}": value
            for section, values in version.configuration.items()
            for name, value in values.items()
        }
        for version in versions
    ]
    keys = _unique(key for settings in flat for key in settings)
    columns = ("setting", *(version.name for version in versions))
    rows = [(key, *(_value(settings.get(key, NOTHING)) for settings in flat)) for key in keys]
    parts: list[Table | Text] = []
    if len(versions) > 1:
        differing = [row for row in rows if len(set(row[1:])) > 1]
        parts.append(Table(columns, differing, "Where they differ") if differing else Text("They are the same."))
    return [*parts, Table(columns, rows, "All settings", folded=True)]


# ---- experiments -----------------------------------------------------------------------------------------------------


def _result_sections(records: Sequence[Record]) -> list[Section]:
    sections = []
    pairs = [record for record in records if record.kind == "significance"]
    for kind, title in _TITLES.items():
        groups = _grouped((r for r in records if r.kind == kind), _experiment)
        names = [f"{title}{_of(group[0])}" for group in groups.values()]
        for (key, group), name in zip(groups.items(), names, strict=True):
            if names.count(name) > 1:
                own = f"data {group[0].fingerprint[:8]}, settings {(key[-1] or group[0].settings_digest)[:8]}"
                sections.append(Section(f"{name} ({own})", _body(kind, group, pairs)))
            else:
                sections.append(Section(name, _body(kind, group, pairs)))
    return sections


def _body(kind: str, group: Sequence[Record], pairs: Sequence[Record]) -> list[Table | Plot | Text]:
    tested = [pair for pair in pairs if pair.facts.get("of") == kind and _of_the_same(pair, group[0])]
    return [*_BODIES[kind](group), *([_significance(tested)] if tested else [])]


def _experiment(record: Record) -> tuple[str, ...]:
    """What runs must share to stand in one table."""
    varied = record.parameter if record.kind in {"sweep", "timing"} else ""
    return (record.data, record.fingerprint, record.split, varied, str(record.facts.get("base", "")))


def _of(record: Record) -> str:
    varied = {"sweep": f" of {record.parameter}", "timing": f" against {record.parameter}"}.get(record.kind, "")
    return f"{varied}: {record.data}, {record.split}"


def _of_the_same(pair: Record, record: Record) -> bool:
    return _experiment(pair)[:3] == _experiment(record)[:3] and _experiment(pair)[4] == _experiment(record)[4]


def _named(records: Sequence[Record], name: Callable[[Record], str]) -> dict[str, list[Record]]:
    """Name → records of one model with one configuration, one a seed; configurations are never averaged."""
    groups = _grouped(records, lambda record: (name(record), record.settings_digest))
    names = [key[0] for key in groups]
    return {key[0] if names.count(key[0]) == 1 else f"{key[0]} ({key[1][:8]})": group for key, group in groups.items()}


def _comparison(records: Sequence[Record]) -> list[Table | Plot | Text]:
    rows = _named(records, lambda record: record.model)
    ranked = sorted(rows, key=lambda name: -_mean(rows[name], "ndcg@20"))
    table = Table(
        ("model", *_MAIN_COLUMNS, "seeds", "epochs", "seconds"),
        [(name, *_main_cells(rows[name]), *_effort(rows[name])) for name in ranked],
    )
    return [_bars({name: rows[name] for name in ranked}, "Means over seeds, bars: sample standard deviation."), table]


def _ablation(records: Sequence[Record]) -> list[Table | Plot | Text]:
    rows = _named(records, lambda record: str(record.value))
    full = next(iter(rows))
    reference = _mean(rows[full], "ndcg@20")
    table = Table(
        ("variant", *_MAIN_COLUMNS, f"NDCG@20 − {full}", "seeds", "epochs", "seconds"),
        [
            (
                name,
                *_main_cells(found),
                NOTHING if name == full else f"{_mean(found, 'ndcg@20') - reference:+.4f}",
                *_effort(found),
            )
            for name, found in rows.items()
        ],
    )
    return [_bars(rows, "The full model and what is left of it without a part."), table]


def _sweep(records: Sequence[Record]) -> list[Table | Plot | Text]:
    parameter = records[0].parameter
    models = _grouped(records, lambda record: (record.model,))
    panels: dict[str, list[Line]] = {metric_label(metric): [] for metric in MAIN}
    rows = []
    for (model,), found in models.items():
        points = _points(found)
        for metric in MAIN:
            lines = panels[metric_label(metric)]
            lines.append(_line(model, points, [[r.metrics[metric] for r in group] for group in points.values()]))
            if all(record.without_table for record in found):
                bare = [[r.without_table[metric] for r in group] for group in points.values()]
                lines.append(_line(f"{model}, B = 0", points, bare))
        names = len(models) > 1
        rows += [
            (f"{model}, {_value(value)}" if names else _value(value), *_main_cells(group), *_effort(group))
            for value, group in points.items()
        ]
    table = Table((parameter, *_MAIN_COLUMNS, "seeds", "epochs", "seconds"), rows)
    return [Plot(lines_figure(panels, parameter), f"{' and '.join(panels)} against {parameter}."), table]


def _timing(records: Sequence[Record]) -> list[Table | Plot | Text]:
    parameter = records[0].parameter
    lines, rows = [], []
    for (model,), found in _grouped(records, lambda record: (record.model,)).items():
        points = _points(found)
        lines.append(_line(model, points, [[record.seconds for record in group] for group in points.values()]))
        rows += [
            (_value(value), model, f"{mean_and_spread([record.seconds for record in group])[0]:.3g}", str(len(group)))
            for value, group in points.items()
        ]
    title = "seconds an epoch"
    plot = Plot(lines_figure({title: lines}, parameter, zero=True), f"{title.capitalize()} against {parameter}.")
    return [plot, Table((parameter, "model", title, "runs"), rows)]


def _tuning(records: Sequence[Record]) -> list[Table | Plot | Text]:
    best = sorted(records, key=lambda record: -record.metrics.get("ndcg@20", 0.0))[:_TRIALS]
    rows = [
        (
            f"{record.model}, {record.parameter} {_value(record.value)}",
            *(_figure(record.metrics.get(metric)) for metric in MAIN),
            str(record.epochs),
            f"{record.seconds:,.1f}",
            ", ".join(f"{name} = {_value(value)}" for name, value in record.chosen.items()),
        )
        for record in best
    ]
    columns = ("trial", *(metric_label(metric) for metric in MAIN), "epochs", "seconds", "chosen")
    return [Table(columns, rows, f"The best {len(rows)} of {len(records)}.")]


_BODIES: Mapping[str, Callable[[Sequence[Record]], list[Table | Plot | Text]]] = {
    "comparison": _comparison,
    "ablation": _ablation,
    "sweep": _sweep,
    "timing": _timing,
    "tuning": _tuning,
}


def _significance(pairs: Sequence[Record]) -> Table:
    rows = [
        (
            f"{pair.model} − {_value(pair.value)}",
            metric_label(str(pair.facts.get("metric", ""))),
            f"{pair.metrics['difference']:+.4f}",
            f"{pair.metrics['low']:+.4f} to {pair.metrics['high']:+.4f}",
            _p(pair.metrics["p_wilcoxon"]),
            _p(pair.metrics["p_t"]),
            _p(pair.metrics["p_holm"]),
        )
        for pair in as_one_family(pairs)
    ]
    level = float(pairs[0].facts.get("level", 0.95))
    columns = ("pair", "metric", "difference", f"{level:.0%} interval", "p, Wilcoxon", "p, t-test", "p, Holm")
    return Table(columns, rows, "Paired over users; Holm's p is the t-test's, adjusted for all pairs together.")


_MAIN_COLUMNS = tuple(metric_label(metric) + without for without in ("", ", B = 0") for metric in MAIN)


def _main_cells(records: Sequence[Record]) -> list[str]:
    served = [_spread([r.metrics[metric] for r in records if metric in r.metrics]) for metric in MAIN]
    return served + [
        _spread([r.without_table[metric] for r in records if metric in r.without_table]) for metric in MAIN
    ]


def _effort(records: Sequence[Record]) -> list[str]:
    epochs = mean_and_spread([record.epochs for record in records])[0]
    seconds = mean_and_spread([record.seconds for record in records])[0]
    return [str(len(records)), f"{epochs:.0f}" if epochs else NOTHING, f"{seconds:,.1f}"]


def _bars(rows: Mapping[str, Sequence[Record]], caption: str) -> Plot:
    panels = {
        metric_label(metric): [(name, *mean_and_spread([r.metrics[metric] for r in rows[name]])) for name in rows]
        for metric in MAIN
    }
    return Plot(bars_figure(panels), caption)


def _points(records: Sequence[Record]) -> dict[Any, list[Record]]:
    """Value → its records; numbers ascending, texts in the order of the records."""
    groups = {key[0]: group for key, group in _grouped(records, lambda record: (record.value,)).items()}
    if all(isinstance(value, int | float) for value in groups):
        return dict(sorted(groups.items(), key=lambda pair: float(pair[0])))  # type: ignore[arg-type]
    return groups


def _line(label: str, points: Mapping[Any, Any], values: Sequence[Sequence[float]]) -> Line:
    numbers = all(isinstance(value, int | float) for value in points)
    found = [mean_and_spread(of_seeds) for of_seeds in values]
    return Line(
        label, list(points) if numbers else [_value(x) for x in points], [m for m, _ in found], [s for _, s in found]
    )


# ---- texts -----------------------------------------------------------------------------------------------------------


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    mean, spread = mean_and_spread(values)
    return f"{mean:.4f} ± {spread:.4f}" if len(values) > 1 else f"{mean:.4f}"


def _mean(records: Sequence[Record], metric: str) -> float:
    return mean_and_spread([record.metrics[metric] for record in records])[0]


def _p(value: float) -> str:
    return "< .0001" if value < 1e-4 else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _count(value: int) -> str:
    return f"{value:,}"


def _memory(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return NOTHING if value is None else str(value)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


Key = TypeVar("Key", bound=Hashable)


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
