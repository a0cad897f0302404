from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from training.checkpoint import load_tensors
from training.trainer import CHECKPOINT, WEIGHTS


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / WEIGHTS)[0]


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    steps = ["--set", "stages=[{steps: 8, patch: 8, batch: 4}]", "--set", "precision=float32"]
    for count in ("1", "2"):
        out = tmp_path / count
        subprocess.run(command(out, *steps, "--processes", count), check=True)
    alone, shared = _weights(tmp_path / "1"), _weights(tmp_path / "2")
    for name in alone:
        torch.testing.assert_close(shared[name], alone[name], atol=1e-5, rtol=0)
    record = load_tensors(tmp_path / "2" / WEIGHTS)[1]["training"]
    assert "threads: 1, processes: 2" in record


@pytest.mark.slow
def test_processes_end_with_the_first_and_a_resumed_run_is_exact(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, "--processes", "2"), check=True)
    killed = subprocess.Popen(command(out, "--processes", "2"))
    while not (out / CHECKPOINT).exists():
        assert killed.poll() is None, "training ended before its first checkpoint"
        time.sleep(0.001)
    others = psutil.Process(killed.pid).children(recursive=True)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (out / WEIGHTS).exists(), "the run was over before it was killed"
    assert others
    assert psutil.wait_procs(others, timeout=60)[1] == []

    subprocess.run(command(out, "--processes", "2"), check=True)
    for name, expected in _weights(whole).items():
        assert torch.equal(_weights(out)[name], expected), name


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_run_and_keeps_its_steps(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    words = command(
        tmp_path, "--processes", "2", "--set", "stages=[{steps: 999999, patch: 8, batch: 2}]"
    )
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / CHECKPOINT).exists():
        assert run.poll() is None
        time.sleep(0.001)
    lost = max(psutil.Process(run.pid).children(), key=lambda one: one.memory_info().rss)
    lost.kill()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "another process of this training ended" in errors
    assert "Traceback" not in errors
    assert int(load_tensors(tmp_path / CHECKPOINT)[1]["step"]) >= 4


def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    words = command(tmp_path / "run", "--processes", "3")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "3 processes cannot share a batch of 2 patches evenly" in done.stderr
