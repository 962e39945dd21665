"""Every test runs offline and seeded; the converted model is shared through the user's own cache."""

import gc
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("shared machine", deadline=None)  # a first example imports numpy, say
hypothesis.settings.load_profile("shared machine")
ROOT = Path(__file__).parent.parent
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would all tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores; threads of each would wait for the other's


@pytest.fixture(autouse=True, scope="module")
def _imported_for_good() -> None:
    gc.freeze()  # training collects garbage, and would look through all of torch and transformers each time


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `foundry` with these arguments in a process of its own, in tmp_path; keywords set environment variables."""

    def run(*argv: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        command = [sys.executable, "-m", "foundry", *argv]
        return subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@dataclass(frozen=True)
class Call:
    """What a call of `foundry train` came to: its exit code, its words, the files it wrote, the jobs it would run."""

    code: int
    out: str
    err: str
    written: list[str]
    jobs: list[Any]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Call]:
    """Calls `foundry train` in this process, in tmp_path, with every job built but none run."""
    from hydra.core.hydra_config import HydraConfig

    from foundry import app
    from foundry.train import TrainManifest

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers])

    def files() -> set[str]:
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}

    def call(*argv: str) -> Call:
        jobs: list[TrainManifest] = []
        before = files()
        code = app.main(
            lambda cfg: jobs.append(TrainManifest.from_config(cfg, HydraConfig.get().overrides.task)),
            TrainManifest.from_config,
            "train",
            argv,
        )
        return Call(code, *capsys.readouterr(), sorted(files() - before), jobs)

    return call
