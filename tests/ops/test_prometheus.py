"""The board and the alert rules ask for what the service tells: expressions parse, every metric and label exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.service.processes import until
from tests.support.artifacts import publish_world

OPS = Path(__file__).parents[2] / "ops"
BOARD = json.loads((OPS / "grafana" / "boards" / "kdiffe.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# What Prometheus adds to every sample.
ADDED = {"instance", "job"}
PARTS = ("expr", "lhs", "rhs", "param", "vector_selector")


def expressions() -> dict[str, str]:
    """Every expression, Grafana's variables filled in as Grafana does."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in RULES}
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            found[f"panel {panel['title']} {target['refId']}"] = text
    return found


EXPRESSIONS = expressions()


def nodes(expression: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield expression
    below = [getattr(expression, name, None) for name in PARTS] + list(getattr(expression, "args", None) or ())
    for part in below:
        if part is not None and type(part).__module__ == type(expression).__module__:
            yield from nodes(part)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every sample's name that the service exposes, with its labels, once all of it has happened."""
    root = tmp_path_factory.mktemp("store")
    publish_world(root)
    with Client(create_app(Settings(store=root, index="exact"))) as client:
        client.post("/interactions", json={"user_id": "u1", "item_id": "i1"})
        # The active version beside itself.
        arms = [{"name": "control", "version": "v0001", "share": 0.5}]
        assert client.request("PUT", "/admin/experiment", json={"name": "x", "variants": arms}).status_code == 200
        client.get("/recommend/u1")
        until(lambda: "kdiffe_job_ended" in client.get("/metrics").text)
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_and_label_that_is_asked_for_is_told(told: dict[str, set[str]], name: str) -> None:
    asked = [node for node in nodes(promql_parser.parse(EXPRESSIONS[name])) if node is not None]
    selectors = [node for node in asked if isinstance(node, promql_parser.VectorSelector)]
    assert selectors, EXPRESSIONS[name]
    known = set(ADDED)
    for selector in selectors:
        assert selector.name in told
        labels = told[selector.name] | ADDED
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels
        known |= labels
    for node in asked:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known


def test_everything_that_the_service_tells_is_on_the_board_or_in_a_rule(told: dict[str, set[str]]) -> None:
    text = " ".join(EXPRESSIONS.values())
    # A counter's birth and a histogram's sum and count say nothing more; refreshes are seen in the sequence numbers.
    told_once = {name for name in told if not name.endswith(("_created", "_sum", "_count", "kdiffe_refreshes"))}
    assert told_once <= set(re.findall(r"\b(?:kdiffe_\w+|up)\b", text))


def test_instances_that_are_found_no_more_are_told_of_too() -> None:
    # They leave no `up` of 0 behind: there is no sample of theirs.
    missing = {
        rule["alert"]
        for rule in RULES
        for node in nodes(promql_parser.parse(rule["expr"]))
        if isinstance(node, promql_parser.Call) and node.func.name in {"absent", "max_over_time"}
        if "up" in {getattr(below, "name", None) for below in nodes(node)}
    }
    assert missing == {"KdiffeGone", "KdiffeFewer"}


def test_every_rule_says_how_bad_it_is_what_has_happened_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        text = " ".join(rule["annotations"].values())
        # What a rule's text names is left of its expression's labels.
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in ADDED or f"by ({label}" in rule["expr"]


def test_a_legend_names_labels_that_its_expression_leaves() -> None:
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert label in grouped[0].split(", ") if grouped else label in ADDED


def test_panels_don_t_lie_on_one_another_and_have_the_provisioned_source() -> None:
    source = yaml.safe_load((OPS / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
