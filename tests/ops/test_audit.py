from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", SCRIPT)
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

SOUND = {"name": "numpy", "version": "2.3.0", "vulns": []}
BAD = {"name": "orjson", "version": "3.9.0", "vulns": [{"id": "PYSEC-2024-40", "fix_versions": ["3.9.15"]}]}
SKIPPED = {"name": "redis", "skip_reason": "Dependency not found on PyPI and could not be audited: redis (7.1.0)"}


@pytest.mark.parametrize(
    ("packages", "status", "words"),
    [
        ([SOUND], 0, "nothing is known against any of 1 packages"),
        ([SOUND, BAD], 1, "orjson 3.9.0: PYSEC-2024-40, mended in 3.9.15"),
        ([SOUND, SKIPPED], 2, "1 of 2 packages could not be looked up: Dependency not found on PyPI"),
        ([BAD, SKIPPED], 1, "1 of 2 packages could not be looked up"),
        ([], 2, "0 of 0 packages"),
    ],
)
def test_what_is_not_known_is_not_taken_for_sound(packages, status, words):
    found, lines = audit.verdict({"dependencies": packages})
    assert found == status
    assert words in "\n".join(lines)


@pytest.mark.parametrize(
    ("says", "status", "words"),
    [
        (
            "import sys; sys.stderr.write('Traceback\\nProxyError: no way out\\n'); sys.exit(1)",
            2,
            "ProxyError: no way out",
        ),
        (f"print({json.dumps({'dependencies': [SOUND]})!r})", 0, "status 0"),
    ],
)
def test_the_status_is_what_pip_audit_has_learnt(tmp_path, monkeypatch, capsys, says, status, words):
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f"#!{sys.executable}\n{says}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", ["audit.py", "constraints.txt"])
    assert audit.main() == status
    assert words in capsys.readouterr().err
