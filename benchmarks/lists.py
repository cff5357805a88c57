"""What a list costs (no HTTP but where said): each filter, boosts, diversity, pages, sessions, heavy users; new items.

The catalogue has the size of a real set and random vectors. CPU time of the process, and the ratio to a plain list of
the same run.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from service.http.app import create_app
from service.index import index_builder
from service.live.model import LiveModel, warm_up
from service.recommendation.cursor import Cursor
from service.recommendation.recommender import Wish, recommend, recommend_page
from service.recommendation.selection import Boost, ItemFilter, Range
from service.settings import Settings
from service.state.entries import entry_of, row_of
from service.state.port import Change, LogEntry
from service.telemetry import configure_logging
from tests.service.client import Client
from tests.support.artifacts import World, publish_world

# Users, items and interactions of the sets (docs/results.md); the width of their models.
SIZES = {"tiktok": (9308, 6710, 59_541, 128), "sports": (35_598, 18_357, 218_409, 128)}
# Shares of the catalogue that are in a category of their own.
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01}
HEAVY = 3000


def cpu_of(call: Callable[[int], object], repeats: int) -> dict[str, float]:
    """CPU milliseconds of a call: the mean, and the 95th percentile."""
    call(0)
    times = []
    for n in range(repeats):
        began = time.process_time_ns()
        call(n)
        times.append((time.process_time_ns() - began) / 1e6)
    return {"mean_ms": round(float(np.mean(times)), 3), "p95_ms": round(float(np.percentile(times, 95)), 3)}


def furnished(model: LiveModel, rng: np.random.Generator) -> None:
    """Give every item a record."""
    entries = []
    for row in range(len(model.items)):
        categories = [name for name, share in SHARES.items() if rng.random() < share]
        content = {"categories": categories, "attributes": {"price": float(rng.random())}}
        change = Change("item", item_id=model.items.id_of(row), content=content)
        entries.append(entry_of(model.sequence + 1 + row, row_of(change)))
    for begin in range(0, len(entries), 256):
        model.apply(entries[begin : begin + 256])


def lists(model: LiveModel, repeats: int, rng: np.random.Generator) -> dict[str, object]:
    """CPU time of each kind of list."""
    users = [str(user) for user in rng.choice(model.artifact.array("user_ids"), repeats + 1)]
    items = [str(item) for item in rng.choice(model.artifact.array("item_ids"), 4000, replace=False)]
    heavy = [LogEntry(model.sequence + 1 + n, "heavy", item, 0.0) for n, item in enumerate(items[:HEAVY])]
    model.apply(heavy)
    while model.settle():
        pass
    wishes = {
        "nothing asked": Wish(20),
        "any: half of all items": Wish(20, ItemFilter(any_of=("half",))),
        "any: a tenth": Wish(20, ItemFilter(any_of=("tenth",))),
        "any: a hundredth": Wish(20, ItemFilter(any_of=("hundredth",))),
        "all: half and tenth": Wish(20, ItemFilter(all_of=("half", "tenth"))),
        "none: half": Wish(20, ItemFilter(none_of=("half",))),
        "range: a tenth": Wish(20, ItemFilter(ranges={"price": Range(at_most=0.1)})),
        "include 200": Wish(20, ItemFilter(include=tuple(items[:200]))),
        "exclude 200": Wish(20, ItemFilter(exclude=tuple(items[:200]))),
        "boost a tenth": Wish(20, boosts=(Boost(0.5, ItemFilter(any_of=("tenth",))),)),
        "min_score": Wish(20, min_score=0.0),
        "diversity": Wish(20, diversity=0.3),
        "diversity and a tenth": Wish(20, ItemFilter(any_of=("tenth",)), diversity=0.3),
    }
    found: dict[str, object] = {"GET": cpu_of(lambda n: recommend(model, users[n], 20), repeats)}
    plain = cpu_of(lambda n: recommend_page(model, users[n], Wish(20)), repeats)["mean_ms"]

    def tell(name: str, call: Callable[[int], object]) -> None:
        times = cpu_of(call, repeats)
        found[name] = {**times, "ratio": round(times["mean_ms"] / plain, 2)}

    for name, wish in wishes.items():
        tell(name, lambda n, wish=wish: recommend_page(model, users[n], wish))
    cursors = {user: recommend_page(model, user, Wish(100))["cursor"] for user in set(users)}
    decoded = {user: Cursor.decode(cursor) for user, cursor in cursors.items() if cursor is not None}
    tell("page 6 by cursor", lambda n: recommend_page(model, users[n], Wish(20), decoded[users[n]]))
    tell("session of 10", lambda n: recommend_page(model, items[n : n + 10], Wish(20)))
    tell(f"{HEAVY} seen items", lambda _: recommend_page(model, "heavy", Wish(20)))
    tell(f"{HEAVY} seen items, a hundredth", lambda _: recommend_page(model, "heavy", wishes["any: a hundredth"]))
    return found


def new_items(root: Path, repeats: int) -> dict[str, object]:
    """PUT of an item over HTTP (in this process, SQLite) until a list holds it: wall-clock milliseconds."""
    put, until = [], []
    with Client(create_app(Settings(store=root, refresh_every=100))) as client:
        for n in range(repeats):
            record = {"categories": [f"only{n}"], "entities": [{"relation": "r0", "entity": f"e{n % 6}"}]}
            began = time.perf_counter()
            answer = client.request("PUT", f"/items/new{n}", json=record)
            done = time.perf_counter()
            asked = {"user_ids": ["u1"], "categories": {"any": [f"only{n}"]}}
            [page] = client.post("/recommend", json=asked).json()["results"]
            assert answer.json()["has_vector"], answer.text
            assert [item["item_id"] for item in page["items"]] == [f"new{n}"], page
            put.append((done - began) * 1e3)
            until.append((time.perf_counter() - began) * 1e3)
    return {
        "put_ms": [round(float(q), 2) for q in np.percentile(put, [50, 95, 100])],
        "until_listed_ms": [round(float(q), 2) for q in np.percentile(until, [50, 95, 100])],
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiktok")
    parser.add_argument("--index", default="faiss")
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--items", type=int, default=250, help="new items that are put over HTTP")
    options = parser.parse_args()
    configure_logging("warning")
    users, items, interactions, width = SIZES[options.size]
    world = World(users, items, interactions, width, n_walks=12, walk_length=50, table_per_row=100, with_encoders=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artifact = publish_world(root, world)
        warm_up()
        model = LiveModel(artifact, index_builder(options.index), start=0, refresh_every=10**9)
        rng = np.random.default_rng(0)
        began = time.process_time()
        furnished(model, rng)
        report: dict[str, object] = {
            "size": options.size,
            "items": items,
            "width": width,
            "index": model.readout.index.name,
            "records_applied_us_each": round((time.process_time() - began) / items * 1e6, 1),
            "lists": lists(model, options.repeats, rng),
            "new_items": new_items(root, options.items),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
