from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import JobFailedError
from service.jobs.training_process import (
    Limits,
    Order,
    Progress,
    TrainingProcess,
    failure,
    resident_mb,
    tail,
    train_command,
)
from tests.service.processes import until


def order(directory: Path) -> Order:
    return Order("v0001", Path("/m"), directory / "log", 7, "abc", directory / "p")


def test_the_command_is_kdiffe_train(tmp_path):
    assert " ".join(train_command(order(Path("/j")))[1:]) == (
        "-m model_store train --base v0001 --store /m --interactions /j/log --sequence 7 --state-id abc "
        "--progress-file /j/p --run-dir /j/run --resume --no-activate --json --trial"
    )
    assert "--trial" not in train_command(replace(order(Path("/j")), trial=False))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"progress": 0.25, "phase": "fit"}', Progress(0.25, "fit")),
        ('{"progress": 7}', Progress(1.0, "train")),
        ('{"progress": "x"}', None),
        ("{", None),
        (None, None),
    ],
)
def test_progress_is_what_the_file_says(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "p").write_text(content)
    command = [sys.executable, "-c", 'print(\'{"version": "v9"}\')']
    with TrainingProcess(order(tmp_path), tmp_path, lambda _: command, Limits()) as process:
        assert process.progress() == expected
        until(lambda: not process.running(), 30)
        assert process.version() == "v9"


def test_a_killed_training_is_told_by_its_signal_and_not_by_harmless_words(tmp_path):
    code = "import os, sys; sys.stderr.write('There is no checkpoint'); sys.stderr.flush(); os.kill(os.getpid(), 9)"
    with TrainingProcess(order(tmp_path), tmp_path, lambda _: [sys.executable, "-c", code], Limits()) as process:
        until(lambda: not process.running(), 30)
        with pytest.raises(JobFailedError, match=r"ended by signal 9 \(SIGKILL\)\. Perhaps .* memory ran out") as error:
            process.version()
    assert "KDIFFE_JOB_MEMORY_MB" in str(error.value)
    assert "checkpoint" not in str(error.value)


def test_a_training_that_fails_without_a_word_is_told_with_the_space_that_is_left(tmp_path):
    (tmp_path / "log.txt").write_text("ValueError: of the attempt before\n")
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    with TrainingProcess(order(tmp_path), tmp_path, lambda _: command, Limits()) as process:
        until(lambda: not process.running(), 30)
        with pytest.raises(JobFailedError, match="status 1: its log is empty\nNo error was told") as error:
            process.version()
    assert re.search(rf"On the disk of {tmp_path}, where it writes, [\d,]+ MiB are free", str(error.value))


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (
            1,
            "There is no checkpoint.\nerror: NoSpaceError: no space\nfor the version.",
            "Training ended with status 1: error: NoSpaceError: no space\nfor the version.",
        ),
        (
            1,
            "ValueError: a first one\nTraceback (most recent call last):\n  raise x\ntorch.OutOfMemoryError: full",
            "Training ended with status 1: torch.OutOfMemoryError: full",
        ),
        (-11, "epoch 1\nerrors: none", "Training was ended by signal 11 (SIGSEGV)."),
        (
            -6,
            "MemoryError\n",
            "Training was ended by signal 6 (SIGABRT). The last error in its log: MemoryError\n",
        ),
        (-50, "", "Training was ended by signal 50 (unknown)."),
    ],
)
def test_the_last_error_is_the_reason_and_a_signal_has_its_name(tmp_path, status, said, expected):
    assert failure(status, said, tmp_path) == expected


def test_memory_is_counted_over_all_that_a_process_has_started():
    child = "import subprocess, sys, time; b = bytearray(b'x') * (60 << 20); print('ready', flush=True); time.sleep(60)"
    code = (
        f"import subprocess, sys; b = bytearray(b'x') * (60 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert 120 < resident_mb(process.pid) < 250
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    until(lambda: resident_mb(process.pid) == 0)  # the kernel takes a moment for the child's child


def test_the_tail_of_a_file_that_is_not_there_is_empty(tmp_path):
    assert tail(tmp_path / "none") == ""
