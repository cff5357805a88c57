from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.jobs.owner import runs, this_process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
TELL = "from service.jobs.owner import this_process; print(this_process(), flush=True); input()"


def test_a_process_runs_until_it_has_ended_even_where_nobody_has_waited_for_it():
    child = subprocess.Popen([sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert runs(name) is True
    child.stdin.close()
    child.stdout.read()  # its end
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert runs(name) is False
    child.wait()
    child.stdout.close()
    assert runs(name) is False


def test_an_id_that_was_given_again_is_another_process():
    here, pid, started = this_process().rsplit("/", 2)
    assert runs(f"{here}/{pid}/{started}") is True
    assert runs(f"{here}/{pid}/{int(started) + 1}") is False


@pytest.mark.parametrize("owner", ["", "nonsense", "other-boot/pid:[4026531836]/1/100"])
def test_of_other_machines_nothing_is_known(owner):
    assert runs(owner) is None
