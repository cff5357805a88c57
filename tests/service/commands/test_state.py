from __future__ import annotations

import json

import pytest

from model_store.command import main
from service.state import open_state
from service.state.port import Interaction
from tests.support.artifacts import publish_world
from tests.support.redis_server import MISSING, RedisServer, server_path

LINES = [
    {"user_id": "u1", "item_id": 7, "timestamp": 3, "type": "buy", "id": "k1"},
    {"kind": "item", "item_id": "7", "content": {"name": "Seven"}, "event_id": "k2"},
    {"kind": "type", "type": "buy", "weight": 3},
    {"kind": "interaction", "user_id": "u2", "item_id": "8"},
    {"kind": "removal", "user_id": "u2", "item_id": "8"},
]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KDIFFE_STATE", raising=False)

    def run(*words: str, status: int = 0):
        assert main([*words, "--store", str(tmp_path / "models"), "--json"]) == status
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]) if status == 0 else err

    return run


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in LINES) + "\n\n")
    return str(path)


def opened(tmp_path):
    return open_state(f"sqlite:///{tmp_path}/models/state.sqlite3")


def test_lines_go_in_and_out(run, lines, tmp_path):
    assert run("import", lines) == {"accepted": 4, "duplicates": 0, "types": 1, "sequence": 4}
    assert run("import", lines)["duplicates"] == 2
    state = opened(tmp_path)
    first = state.read(0, 1)[0]
    assert (first.user_id, first.item_id, first.timestamp, first.type, first.event_id) == ("u1", "7", 3.0, "buy", "k1")
    assert state.read(2, 1)[0].timestamp > 1.7e9  # the time of the import
    state.close()
    shown = run("state", "show")
    assert (shown["last"], shown["compacted"], shown["items"], shown["users"]) == (6, 0, 1, 0)
    assert shown["types"] == {"buy": 3.0}
    path = tmp_path / "out.jsonl"
    assert run("export", str(path)) == {"lines": 7, "path": str(path)}
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in found] == ["type", "interaction", "item", *["interaction", "removal"] * 2]
    assert found[1]["weight"] == 3.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"user_id": "u"}', "item_id"),
        ("{", "line 2"),
        ("[1]", "line 2"),
        ('{"kind": "party", "user_id": "u"}', "'party' is no kind"),
        ('{"kind": "erased", "user_id": "u"}', "'erased' is no kind"),
        ('{"kind": "item", "item_id": "i"}', "content"),
        ('{"kind": "item", "item_id": "i", "content": 5}', "content"),
        ('{"kind": "item", "item_id": "i", "content": {"colour": 5}}', "colour: Extra inputs are not permitted"),
        ('{"kind": "item", "item_id": "i", "content": {"categories": "lamps"}}', "categories='lamps'"),
        ('{"kind": "user", "user_id": "u", "content": {"age": 3}}', "attributes: Field required"),
        ('{"user_id": "u", "item_id": true}', "neither a text nor a whole number"),
        ('{"user_id": "u", "item_id": ""}', "is empty"),
        ('{"user_id": "u", "item_id": "i", "timestamp": "noon"}', "noon"),
        ('{"user_id": "u", "item_id": "i", "timestamp": "nan"}', "no number"),
        ('{"user_id": "u\\u0000", "item_id": "i"}', "U+0000"),
        ('{"kind": "item", "item_id": "i\\n", "content": {}}', "U+000A"),
        ('{"kind": "type", "type": "buy", "weight": -1}', "below 0"),
    ],
)
def test_a_line_that_says_nothing_is_told_with_its_number(run, tmp_path, line, words):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    error = run("import", str(path), status=1)
    assert words in error
    assert "line 2" in error
    state = opened(tmp_path)
    assert state.last_sequence() == 0  # its whole batch stays out
    state.close()


def test_a_bad_line_further_on_says_what_is_taken_up_already(run, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text((json.dumps({"user_id": "u", "item_id": "i"}) + "\n") * 1000 + "{\n")
    error = run("import", str(path), status=1)
    assert "line 1001" in error
    assert "Lines 1 to 1000 are taken up" in error
    state = opened(tmp_path)
    assert state.last_sequence() == 1000
    state.close()


def test_an_address_to_listen_on_is_passed_over_by_commands_that_listen_nowhere(run, lines, monkeypatch):
    monkeypatch.setenv("KDIFFE_HOST", "0.0.0.0")  # noqa: S104 (as in the image; serving asks for a key)
    monkeypatch.delenv("KDIFFE_ADMIN_KEY", raising=False)
    assert run("import", lines)["accepted"] == 4
    assert run("state", "show")["last"] == 4


def test_a_file_that_can_not_be_written_is_named(run, lines, tmp_path):
    run("import", lines)
    assert "can't be written" in run("export", str(tmp_path / "nowhere" / "lines.jsonl"), status=1)


def test_compaction_names_the_versions_that_may_need_the_rest(run, lines, tmp_path, capsys):
    run("import", lines)
    assert run("state", "compact")["needed_by"] == []
    publish_world(tmp_path / "models")  # made before this log
    found = run("state", "compact")
    assert (found["compacted"], found["last"], found["needed_by"]) == (0, 4, ["v0001"])
    assert main(["state", "compact", "--store", str(tmp_path / "models")]) == 0
    assert "begins at 1 and ends at 4. v0001 may need the rest" in " ".join(capsys.readouterr().err.split())


def test_a_user_is_erased_and_a_type_weighed(run, lines, tmp_path):
    run("import", lines)
    assert run("state", "weigh", "buy", "0.5")["types"] == {"buy": 0.5}
    done = run("state", "erase", "u1")
    assert (done["sequence"], done["versions"]) == (5, [])
    state = opened(tmp_path)
    assert "u1" not in {entry.user_id for entry in state.read(0, 4)}
    state.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("weigh", "buy", "inf"), "WEIGHT inf: a weight is a number between 0 and 1e+06"),
        (("weigh", "buy\x07", "2"), "TYPE 'buy\\x07': it holds the control character U+0007"),
        (("erase", ""), "USER_ID '': it is empty"),
    ],
)
def test_a_weight_type_or_user_that_is_none_is_refused(run, lines, words, told):
    run("import", lines)
    assert told in " ".join(run("state", *words, status=1).split())
    assert run("state", "show")["types"] == {"buy": 3.0}


def test_a_backup_is_restored_into_an_empty_state_only(run, lines, tmp_path, capsys):
    run("import", lines)
    path = tmp_path / "state.backup"
    assert run("state", "backup", str(path))["entries"] == 4
    assert "empty" in run("state", "restore", str(path), status=1)
    other = f"sqlite:///{tmp_path}/other.sqlite3"
    position = run("state", "restore", str(path), "--state", other)
    assert (position["last"], position["compacted"]) == (4, 0)
    mine, theirs = opened(tmp_path), open_state(other)
    assert mine.read(0, 100) == theirs.read(0, 100)
    assert mine.state_id == theirs.state_id == position["state_id"]
    mine.close()
    theirs.close()


@pytest.mark.parametrize("keep", [1, -1, -3])
def test_a_backup_that_was_cut_off_or_is_none_restores_nothing(run, lines, tmp_path, keep):
    run("import", lines)
    path = tmp_path / "state.backup"
    run("state", "backup", str(path))
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:keep]))
    assert "cut off" in run("state", "restore", str(path), "--state", f"sqlite:///{tmp_path}/new.sqlite3", status=1)
    path.write_text(path.read_text() + '{"kind": "jo')
    assert "cut off" in run("state", "restore", str(path), "--state", f"sqlite:///{tmp_path}/new.sqlite3", status=1)
    assert "no backup" in run("state", "restore", lines, "--state", f"sqlite:///{tmp_path}/new.sqlite3", status=1)
    path.write_text(whole[0].replace('"version":1', '"version":2') + "".join(whole[1:]))
    assert "version 2" in run("state", "restore", str(path), "--state", f"sqlite:///{tmp_path}/new.sqlite3", status=1)
    assert not (tmp_path / "new.sqlite3").exists()


def test_where_there_is_no_state_none_is_made_to_be_shown(run, tmp_path):
    assert "no state" in run("state", "show", status=1)
    assert "no state" in run("export", str(tmp_path / "x"), status=1)
    assert not (tmp_path / "models").exists()


@pytest.mark.redis
@pytest.mark.skipif(server_path() is None, reason=MISSING)
def test_a_state_moves_from_sqlite_to_redis_by_a_backup(run, lines, tmp_path, monkeypatch):
    run("import", lines)
    path = str(tmp_path / "state.backup")
    run("state", "backup", path)
    with RedisServer("--requirepass", "hunter2") as server:
        monkeypatch.setenv("KDIFFE_STATE_PASSWORD", "hunter2")
        position = run("state", "restore", path, "--state", server.url())
        assert position["last"] == 4
        mine, theirs = opened(tmp_path), open_state(server.url(), "hunter2")
        assert theirs.read(0, 100) == mine.read(0, 100)
        assert theirs.append([Interaction("u", "i", 0.0, event_id="k1")]).duplicates == 1
        mine.close()
        theirs.close()
