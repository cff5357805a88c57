"""The console in a real browser: what a reader sees is what the service answers, by mouse and by keyboard."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.experiment import Arm
from service.http.app import create_app
from service.security.key_book import KeyBook
from service.settings import Settings
from tests.service.houses import trainer
from tests.service.processes import until
from tests.support.browser import started_browser
from tests.support.knowledge import publish_knowledge_world
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.browser

USER, ITEM_PATH = "u2", "#/users/u2"
EPOCHS = [
    {"epoch": epoch, "loss": 1 / epoch, "seconds": 0.5, "metrics": {"ndcg@20": epoch / 20, "recall@20": epoch / 10}}
    for epoch in range(1, 6)
]
REPORT = {
    "report_version": 1,
    "curve": {"selected_by": "ndcg@20", "best_epoch": 4, "epochs": EPOCHS},
    "validation": {"masked": ["train"], "served": {"ndcg@20": 0.4321, "ndcg@10": 0.3, "ndcg@5": 0.2}},
}
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 800}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as browser:
        yield browser


@pytest.fixture
def server(browser: Any, tmp_path: Path) -> Iterator[LiveServer]:
    store = tmp_path / "store"
    for n in (1, 2):
        metrics = {"valid": {"ndcg@20": 0.2 * n, "recall@20": 0.1 * n}}
        publish_knowledge_world(store, tmp_path / f"aside{n}", REPORT, metrics=metrics)
    settings = Settings(store=store, console=True, index="exact", version_interval=0.05)
    with LiveServer(create_app(settings, train_command=trainer("hold", "--ndcg", "0.9"))) as server:
        yield server


class Reader:
    """A reader with a page open. Whatever the page asked of another host or the policy refused is kept."""

    def __init__(self, browser: Any, url: str, *, size: str = "wide", scheme: str = "light") -> None:
        self.url = url
        self.context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
        self.context.set_default_timeout(45_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        # Refused requests are the service's answers, which tests look at themselves.
        self.page.on("console", lambda it: it.type == "error" and "status of 4" not in it.text and self._keep(it.text))
        self.page.on("pageerror", lambda error: self._keep(str(error)))
        self.page.on("request", lambda it: it.url.startswith(f"{url}/") or self._keep(it.url))

    def _keep(self, fault: str) -> None:
        self.faults.append(fault)

    def go(self, fragment: str) -> Any:
        self.page.goto(f"{self.url}/console/{fragment}")
        self.page.get_by_role("heading", level=1).wait_for()
        return self.page

    def cells(self, table: str, head: str) -> list[str]:
        """The texts of a table's column."""
        found = self.page.get_by_role("table", name=table)
        found.wait_for()
        heads = found.locator("thead th").all_inner_texts()
        return [row.locator("th, td").nth(heads.index(head)).inner_text() for row in found.locator("tbody tr").all()]

    def violations(self) -> list[str]:
        """What axe-core finds fault with: every rule that it has, the best practices included."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{fault['id']}: {[node['html'][:200] for node in fault['nodes'][:3]]}" for fault in found]


@pytest.fixture
def reader(browser: Any, server: LiveServer) -> Iterator[Reader]:
    reader = Reader(browser, server.url)
    yield reader
    reader.context.close()
    assert reader.faults == []


def test_a_user_s_lists_are_those_of_the_service(reader, server):
    httpx.post(f"{server.url}/interactions", json={"user_id": "a/b ü", "item_id": "i1"}, trust_env=False)
    page = reader.go("")
    page.get_by_label("User id").fill("a/b ü")
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("heading", name="User a/b ü").wait_for()
    expected = httpx.get(f"{server.url}/recommend/a%2Fb%20%C3%BC?k=10", trust_env=False).json()
    shown = reader.cells("Recommendations, the best first", "Item")
    assert [text.split()[-1] for text in shown] == [item["item_id"] for item in expected["items"]]
    assert shown[0].startswith("Item ")
    assert reader.cells("Items of the history", "Item") == ["Item 1 i1"]
    assert reader.cells("Items of the history", "Since") == ["new"]
    page.get_by_label("Show").select_option("20")
    page.locator("section[aria-labelledby=recommended] tbody tr").nth(19).wait_for()


def test_an_unknown_user_is_told_and_gets_what_is_popular(reader):
    page = reader.go("#/users/nobody")
    page.get_by_text("Nobody has seen this user yet").wait_for()
    assert set(reader.cells("Recommendations, the best first", "How")) == {"popular"}


def test_the_picture_of_an_explanation_is_what_the_service_explains(reader, server):
    page = reader.go(ITEM_PATH)
    page.locator("section[aria-labelledby=recommended] tbody a").first.click()
    page.get_by_role("heading", name=re.compile(f"^Why Item .* for {USER}$")).wait_for()
    item = page.url.split("/")[-2]
    expected = httpx.get(f"{server.url}/explain/{USER}/{item}?parts=reasons", trust_env=False).json()
    page.get_by_text(expected["sentence"]).wait_for()
    page.get_by_text("as the list was served").wait_for()
    parts = expected["contributions"]
    page.get_by_role("table", name="Parts of the score").wait_for()
    more = page.get_by_role("button", name="Show all")
    if more.count():
        more.click()
    adds = [float(text) for text in reader.cells("Parts of the score, the largest first", "Adds")]
    assert adds == pytest.approx([expected["self"], *(part["contribution"] for part in parts)], rel=2e-3)
    assert sum(adds) == pytest.approx(expected["score"], rel=1e-2, abs=1e-3)
    # A bar's length is its part's size: the same ratio in every row.
    bars = page.locator("section[aria-labelledby=parts] svg.bar").all()
    assert len(bars) == len(parts) + 1
    ratios = []
    for bar, part in zip(bars[1:], parts, strict=True):
        widths = [float(rect.get_attribute("width")) for rect in bar.locator("rect").all()]
        ratios.append(sum(widths) / sum(abs(part[name]) for name in ("link", "attention", "direct")))
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    # The graph: the user, the items that count most, the item's entities, the item.
    nodes = page.locator("figure.graph .node title").all_text_contents()
    assert nodes[0] == USER
    assert nodes[-1] == expected["name"]
    for part in parts[:6]:
        assert any(node.startswith(f"{part['name']}: ") for node in nodes)
    entities = {f"{entity['relation']}: {entity['entity']}" for entity in expected["reasons"]["entities"]}
    assert entities == {node for node in nodes if node.startswith(("brand: ", "word: "))}
    page.get_by_text("The graph in words").click()
    assert len(page.locator("figure.graph li").all()) == min(len(parts), 6)


def test_what_a_place_in_the_list_rests_on_and_why_an_item_has_none_is_told(reader, server):
    best = httpx.get(f"{server.url}/recommend/{USER}?k=5", trust_env=False).json()["items"][0]["item_id"]
    query = "parts=counterfactual,why_not&k=5"
    expected = httpx.get(f"{server.url}/explain/{USER}/{best}?{query}", trust_env=False).json()["counterfactual"]
    assert expected["found"]
    page = reader.go(f"#/users/{USER}/items/{best}")
    page.get_by_label("Of the best").select_option("5")
    said = page.locator("p.counterfactual", has_text="the best 5")
    said.wait_for()
    assert said.locator("a").all_inner_texts() == [item["name"] for item in expected["removed"]]

    ranked = httpx.get(f"{server.url}/recommend/{USER}?k=30", trust_env=False).json()["items"]
    last = ranked[-1]["item_id"]
    page = reader.go(f"#/users/{USER}")
    page.get_by_label("Why, or why not, item").fill(last)
    page.get_by_role("button", name="Explain").click()
    page.get_by_label("Of the best").select_option("10")
    said = page.locator("p.why-not", has_text="the best 10")
    said.wait_for()
    assert f"others score higher. Its rank is {len(ranked)}." in said.inner_text()


def test_a_retrained_version_shows_its_trial_and_never_its_ancestor_s_figures(reader, server, tmp_path):
    store = server.app.state.context.registry.store
    carried = {"valid": {"ndcg@20": 0.4, "recall@20": 0.2}, "selected_as": "v0002"}
    figures = {name: {"ndcg@20": value, "recall@20": value} for name, value in (("known", 0.3), ("valid", 0.31))}
    tried = {**carried, "trial": {"base": "v0002", "before": figures["known"], **figures}}
    for n, metrics in enumerate((carried, tried)):
        publish_knowledge_world(store.root, tmp_path / f"retrained{n}", REPORT, metrics=metrics)
    reader.go("#/versions")
    assert reader.cells("Versions, the newest first", "NDCG@20") == ["0.31", "–", "0.4", "0.2"]


def test_versions_are_compared_activated_and_rolled_back_by_the_keyboard_alone(reader, server):
    page = reader.go("#/versions")
    assert reader.cells("Versions, the newest first", "Version") == ["v0002", "v0001"]
    assert reader.cells("Versions, the newest first", "NDCG@20") == ["0.4", "0.2"]
    store = server.app.state.context.registry.store

    def press(name: str, said: str) -> None:
        page.get_by_role("button", name=name).first.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("dialog[open]")
        dialog.wait_for()
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.textContent") != name:
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_text(said).wait_for()

    press("Activate v0001", "v0001 is in force.")
    assert store.active() == "v0001"
    page.get_by_text("serving v0001").wait_for()
    press("Roll back to v0002", "v0002 is in force again.")
    assert store.active() == "v0002"


def test_an_experiment_is_shown_wherever_its_versions_act_and_ended(reader, server):
    store = server.app.state.context.registry.store
    store.set_experiment("wider-vectors", [Arm("b", "v0001", 0.25), Arm("asked", "v0001", 0.0)])
    running = store.experiment()
    user = next(name for name in (f"u{n}" for n in range(1000)) if running.variant_of(name) == "b")
    until(lambda: httpx.get(f"{server.url}/health/ready", trust_env=False).json()["variants"] != {}, 20)
    httpx.get(f"{server.url}/recommend/{user}?variant=asked", trust_env=False).raise_for_status()
    page = reader.go(f"#/users/{user}")
    page.get_by_text("serving v0002, b: v0001, asked: v0001").wait_for()
    page.locator("section[aria-labelledby=recommended]").get_by_text("Version v0001 (variant b)").wait_for()
    page.locator("section[aria-labelledby=history]").get_by_text("Version v0001 (variant b)").wait_for()
    page.locator("section[aria-labelledby=recommended] tbody a").nth(1).click()
    page.locator("dl.facts > div", has_text="Version").get_by_text("v0001", exact=True).wait_for()

    page = reader.go("#/service")
    page.locator("dl.facts > div", has_text="Variant b").get_by_text("v0001, 25 %").wait_for()
    lists = "Lists by version and variant"
    told = zip(*(reader.cells(lists, head) for head in ("Version", "Variant", "All")), strict=True)
    assert sorted(told) == [("v0001", "b", "1"), ("v0001", "named by the request", "1")]

    page = reader.go("#/versions")
    variants = "Variants of the experiment"
    assert reader.cells(variants, "Variant") == ["main", "b", "asked"]
    assert reader.cells(variants, "Version") == ["v0002", "v0001", "v0001"]
    assert reader.cells(variants, "Users") == ["75 %", "25 %", "0 %"]
    assert reader.cells(variants, "State") == ["served"] * 3
    assert "variant b variant asked" in reader.cells("Versions, the newest first", "State")[1]
    assert reader.violations() == []
    page.get_by_role("button", name="End the experiment").click()
    page.locator("dialog[open]").get_by_role("button", name="End the experiment").click()
    page.get_by_text("The experiment has ended.").wait_for()
    page.get_by_role("table", name=variants).wait_for(state="detached")
    assert store.experiment() is None


def test_a_version_s_page_has_its_metrics_and_curves(reader):
    page = reader.go("#/versions/v0002")
    assert reader.cells("Metrics on the validation split", "@20 as served") == ["0.4321"]
    page.locator(".plot canvas").nth(1).wait_for()
    page.get_by_text("Loss: the numbers").click()
    assert reader.cells("Loss", "loss") == ["1", "0.5", "0.3333", "0.25", "0.2"]
    page.get_by_text("epoch 4 was kept by ndcg@20").wait_for()


def test_a_retrain_is_watched_until_its_version_is_served(reader, server):
    page = reader.go("#/training")
    page.get_by_text("No job yet.").wait_for()
    page.get_by_role("button", name="Retrain").click()
    page.get_by_role("progressbar", name="Progress").wait_for()
    page.get_by_text("Phase: fit").wait_for()
    (server.app.state.context.registry.store.root / "go").touch()
    page.get_by_text(re.compile("The last job, [0-9a-f]{12}, has succeeded")).wait_for()
    assert reader.cells("Jobs, the newest first", "Version") == ["v0003"]
    page.get_by_text("serving v0003").wait_for()
    page.get_by_text("Log", exact=True).first.click()
    page.get_by_text("attempt 1").wait_for()
    assert page.get_by_role("button", name="Retrain").is_enabled()


@pytest.mark.slow
def test_a_job_is_cancelled(reader):
    page = reader.go("#/training")
    page.get_by_role("button", name="Retrain").click()
    page.get_by_text("Phase: fit").wait_for()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_text(re.compile("The last job, [0-9a-f]{12}, was cancelled")).wait_for()
    assert reader.cells("Jobs, the newest first", "State") == ["cancelled"]


def test_the_service_s_page_tells_its_state_rates_and_errors(reader, server):
    for item in ("i1", "i2", "i3"):
        httpx.post(f"{server.url}/interactions", json={"user_id": "u1", "item_id": item}, trust_env=False)
    assert httpx.get(f"{server.url}/explain/nobody/i1", trust_env=False).status_code == 404
    reader.page.clock.install()
    page = reader.go("#/service")
    fact = page.locator("dl.facts > div", has_text="Applied up to").locator("dd")
    fact.wait_for()
    assert fact.inner_text() == "3"
    shown = zip(reader.cells("Requests by route", "Route"), reader.cells("Requests by route", "All"), strict=True)
    assert dict(shown)["/interactions"] == "3"
    assert "GET /explain/{user_id}/{item_id}" in reader.cells("Answers with an error", "Route")
    page.get_by_text("Rates appear after 5 seconds.").wait_for()
    page.clock.fast_forward(5000)
    page.locator(".plot canvas").wait_for()


@pytest.mark.slow
def test_a_key_for_reading_reads_and_what_it_may_not_do_is_told(browser, tmp_path):
    publish_knowledge_world(tmp_path / "store", tmp_path / "aside")
    settings = Settings(
        store=tmp_path / "store", console=True, require_keys="read", admin_key="of-the-admin-alone", index="exact"
    )
    with LiveServer(create_app(settings)) as server:
        _, key = KeyBook(server.app.state.context.state).add("reader", ["read"], time.time())
        reader = Reader(browser, server.url)
        page = reader.go("#/users/u2")
        page.locator("dialog[open]").wait_for()
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        assert len(reader.cells("Recommendations, the best first", "Item")) == 10
        page.get_by_role("link", name="Versions").click()
        page.get_by_text("has the scopes read; this needs admin").wait_for()
        reader.context.close()
        assert reader.faults == []


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(browser, tmp_path):
    key = "correct-horse-battery-staple"
    publish_knowledge_world(tmp_path / "store", tmp_path / "aside")
    settings = Settings(store=tmp_path / "store", console=True, admin_key=key, index="exact")
    with LiveServer(create_app(settings)) as server:
        reader = Reader(browser, server.url)
        page = reader.go("#/versions")
        for given, seen in (("wrong", "dialog[open] [role=alert]"), (key, "tbody a >> text=v0001")):
            page.locator("dialog[open]").wait_for()
            page.get_by_label("Key", exact=True).fill(given)
            page.keyboard.press("Enter")
            page.locator(seen).wait_for()
        assert page.evaluate("[sessionStorage['kdiffe.key'], JSON.stringify(localStorage), location.href]") == [
            key,
            '{"kdiffe.theme":"system"}',
            f"{server.url}/console/#/versions",
        ]
        page.get_by_role("button", name="Forget the key").click()
        page.locator("dialog[open]").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        reader.context.close()
        assert reader.faults == []


PAGES = {
    "#/users": None,
    "#/users/u2": "section[aria-labelledby=history] tbody",
    "#/users/u2/items/i3": "section[aria-labelledby=place] p",
    "#/versions": "tbody",
    "#/versions/v0002": ".plot canvas",
    "#/training": ".empty",
    "#/service": "section[aria-labelledby=rates]",
}


@pytest.mark.parametrize(
    ("scheme", "size"),
    [
        ("dark", "phone"),
        pytest.param("light", "wide", marks=pytest.mark.slow),
        pytest.param("light", "phone", marks=pytest.mark.slow),
    ],
)
def test_no_page_has_a_fault_that_axe_finds_and_none_is_wider_than_the_screen(browser, server, scheme, size):
    reader = Reader(browser, server.url, size=size, scheme=scheme)
    for fragment, there in PAGES.items():
        page = reader.go(fragment)
        if there is not None:
            page.locator(there).first.wait_for()
        assert reader.violations() == [], fragment
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], fragment
    page.get_by_role("button", name="Key").click()
    page.locator("dialog[open]").wait_for()
    assert reader.violations() == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    reader.context.close()
    assert reader.faults == []


def test_the_keyboard_s_first_stop_leads_past_the_navigation_and_a_new_page_has_the_focus(reader):
    page = reader.go("#/versions")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_role("link", name="Training").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Training").wait_for()
    page.locator("h1:focus").wait_for()
    assert page.title() == "Training · KDiffE console"
