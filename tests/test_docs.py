"""The documents say what is so: names exist, tables are the code's, the worked example is what the definition gives."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from dataclasses import fields
from functools import reduce
from pathlib import Path

import pytest

from model_store.artifact import REQUIRED, Artifact
from model_store.manifest import FORMAT_VERSION, Manifest
from model_store.walks import WALK_VERSION
from tests.model_store import reference
from tests.support.artifacts import World, publish_world

ROOT = Path(__file__).parents[1]
NEEDS_TORCH = importlib.util.find_spec("torch") is None


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the Markdown table whose first column has the given heading: the cells' texts."""
    lines = (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()
    tables: list[list[list[str]]] = [[]]
    for line in lines:
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    found = [rows[2:] for rows in tables if rows and rows[0][: heading.count(",") + 1] == heading.split(",")]
    assert found, f"docs/{document} has no table that begins with {heading!r}"
    return [row for rows in found for row in rows]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


EQUATIONS = table("equations.md", "formula")


# ---- settings.md -----------------------------------------------------------------------------------------------------


def test_every_setting_of_the_service_stands_in_the_table() -> None:
    pytest.importorskip("pydantic_settings")
    from service.settings import Settings

    def shown(value: object) -> str:
        return "" if value in (None, "", ()) else f"`{str(value).lower() if isinstance(value, bool) else value}`"

    assert table("settings.md", "variable") == [
        [f"`KDIFFE_{name.upper()}`", shown(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]


# ---- equations.md ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for row in EQUATIONS for name in quoted(row[2])])
def test_every_function_of_the_equations_exists(name: str) -> None:
    module, _, attribute = name.partition(":")
    if module.startswith("training.") and NEEDS_TORCH:
        pytest.skip(f"{module} needs torch, which is not installed")
    assert callable(reduce(getattr, attribute.split("."), importlib.import_module(module)))


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: quoted(row[2])[0])
def test_every_test_of_the_equations_exists(row: list[str]) -> None:
    if row[3] == "none yet":
        pytest.skip("docs/equations.md says that it has no test yet")
    names = quoted(row[3])
    assert names, f"{row[0]} names no test"
    for name in names:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 15, "D2", "D3", "D4", "D10", "serving form", "explanation"])
def test_every_formula_has_a_row(number: int | str) -> None:
    formulas = [row[0] for row in EQUATIONS]
    assert any((f"({number})" if isinstance(number, int) else number) in formula for formula in formulas)


# ---- artifact.md -----------------------------------------------------------------------------------------------------


def array_rows() -> dict[str, tuple[str, str]]:
    return {quoted(row[0])[0]: (quoted(row[1])[0], row[2]) for row in table("artifact.md", "array")}


def test_the_required_arrays_are_the_code_s() -> None:
    document = (ROOT / "docs" / "artifact.md").read_text(encoding="utf-8")
    section = document.split("## Arrays that every artifact holds")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE)) == REQUIRED


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return publish_world(tmp_path_factory.mktemp("models"), World(n_users=5, n_items=7, n_interactions=20, n_layers=3))


def test_every_array_that_the_kernel_writes_has_the_documented_type_and_shape(artifact: Artifact) -> None:
    documented = array_rows()
    # The symbols that the manifest fixes; any other letter takes its first value and must keep it.
    manifest = artifact.manifest
    sizes = {"I": manifest.n_users, "J": manifest.n_items, "N": manifest.n_users + manifest.n_items}
    sizes |= {"w": manifest.width, "L": 3, "n": int(manifest.data["n_interactions"])}
    for name in artifact.names():
        dtype, shape = documented[name]
        found = artifact.array(name)
        assert found.dtype.str.startswith(dtype), name
        expected = []
        for symbol, size in zip(re.findall(r"[^(), ]+", shape), found.shape, strict=True):
            factor, letter, more = re.fullmatch(r"(\d*)([A-Za-z])(?:\+(\d))?", symbol).groups()  # type: ignore[union-attr]
            expected.append(int(factor or 1) * sizes.setdefault(letter, size) + int(more or 0))
        assert found.shape == tuple(expected), name


def test_the_fields_of_the_manifest_are_the_code_s() -> None:
    documented = [name for row in table("artifact.md", "field") for name in quoted(row[0])]
    assert sorted(documented) == sorted(field.name for field in fields(Manifest))


def test_the_format_s_history_ends_with_the_version_that_is_written() -> None:
    assert int(table("artifact.md", "version")[-1][0]) == FORMAT_VERSION


# ---- attention.md ----------------------------------------------------------------------------------------------------


def test_the_worked_example_is_what_the_definition_gives() -> None:
    document = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
    keys = {
        tuple(row[0].replace("`", "").split()): int(quoted(row[1])[0], 16) for row in table("attention.md", "node,key")
    }
    assert keys == {node: reference.key(node) for node in keys}  # type: ignore[arg-type]
    pairs = re.findall(r"(\w+)–(\w+)", re.search(r"^Interactions: (.*)\.$", document, flags=re.MULTILINE)[1])  # type: ignore[index]
    assert len(pairs) == 5
    lists = reference.neighbor_lists(pairs, keys)  # type: ignore[arg-type]
    names = {node[1]: node for node in lists}
    assert len(names) == len(lists)
    seed, walks, steps, c = 42, 2, 4, 0.25
    rows = table("attention.md", "node,neighbor list")
    assert len(rows) == len(lists)
    for name, neighbors, stream, *written in rows:
        node = names[name]
        assert neighbors.split() == [other[1] for other in lists[node]]
        assert int(quoted(stream)[0], 16) == reference.stream(keys[node], seed, 0)
        for w, walk in enumerate(written):
            stood = reference.walk(node, w, lists, keys, steps, c, seed)  # type: ignore[arg-type]
            assert walk.split() == [other[1] for other in stood]
    sets = {node: reference.visited_set(node, lists, keys, walks, steps, c, seed) for node in lists}  # type: ignore[arg-type]
    similarities = table("attention.md", "user,item")
    assert [(user, item) for user, item, _ in similarities] == pairs
    for user, item, fraction in similarities:
        a, b = sets["user", user], sets["item", item]
        assert fraction == f"{len(a & b)}/{len(a | b)}"


def test_the_walk_s_version_is_the_documented_one() -> None:
    document = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
    assert f"`WALK_VERSION` (now {WALK_VERSION})" in document


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
