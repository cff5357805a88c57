"""Looks pinned versions up in the list of known vulnerabilities: `audit.py constraints.txt`.

The status tells what is known: 0 nothing against any version, 1 something against one, 2 nothing was to be learnt of
one or all (no index answers, or a mirror that has no such list). pip-audit itself ends with 1 for the last two,
and says "No known vulnerabilities found" where a mirror knows none of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
SOUND, VULNERABLE, UNKNOWN = 0, 1, 2


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """The status and what is to be said, of pip-audit's report."""
    packages = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    status = VULNERABLE if lines else SOUND
    if skipped or not packages:
        lines.append(
            f"audit: {len(skipped)} of {len(packages)} packages could not be looked up"
            f"{': ' + skipped[0]['skip_reason'] if skipped else ''}. Nothing is known of them: run it where pypi.org "
            "answers."
        )
        status = status or UNKNOWN
    if status == SOUND:
        lines.append(f"audit: nothing is known against any of {len(packages)} packages.")
    elif status == VULNERABLE:
        lines.append("audit: raise the versions above in constraints.txt.")
    return status, lines


def main() -> int:
    """Ask, and say what was answered."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", sys.argv[1], *COMMAND]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        status, lines = verdict(json.loads(asked.stdout))
    except ValueError:  # no report
        last = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        status, lines = UNKNOWN, [f"audit: pip-audit could not look anything up: {last}"]
    sys.stderr.write("".join(f"{line}\n" for line in [*lines, f"audit: status {status}"]))
    return status


if __name__ == "__main__":
    sys.exit(main())
