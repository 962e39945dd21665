"""The command `foundry` in processes that can be stopped and killed, without each importing torch anew."""

import gc
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

HEAVY = [
    *("foundry.train", "foundry.method.trainers", "foundry.prune.semdedup", "datasets", "reasoning_gym", "git"),
    *("mlflow.tracking", "mlflow.data", "mlflow.system_metrics", "mlflow.store.tracking.sqlalchemy_store"),
]
FORK = multiprocessing.get_context("forkserver")
"""Starts processes that have the heavy libraries; they get the environment of the first, unless they set their own."""
FORK.set_forkserver_preload(HEAVY)


class Job:
    """`foundry WORDS` started in `folder`, forked from a process that has imported the heavy libraries.

    Args:
        folder: Its working directory.
        words: Its arguments.
        file_limit: Bytes that a file may have at most, as with `ulimit -f`.
        environment: Variables to set.
    """

    def __init__(self, folder: Path, *words: str, file_limit: int | None = None, **environment: str) -> None:
        self._place = tempfile.TemporaryDirectory()
        self._said = Path(self._place.name)
        self._process = FORK.Process(
            target=_run, args=(folder, self._said, words, file_limit, os.environ | environment)
        )
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return (self._said / "out").read_text() if (self._said / "out").exists() else ""

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return (self._said / "err").read_text() if (self._said / "err").exists() else ""

    def until(self, met, seconds: float = 240) -> None:
        """Wait until `met()`; fails if the job ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not met():
            assert self._process.is_alive(), f"ended with {self._process.exitcode}: {self.err}"
            assert time.monotonic() < deadline, f"still waiting: {self.out}"
            time.sleep(0.005)

    def send(self, signal: int) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, signal)

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end and give its exit code."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still running: {self.out}"
        return self._process.exitcode


def _run(folder: Path, said: Path, words: tuple[str, ...], file_limit: int | None, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    os.chdir(folder)
    from foundry.__main__ import main

    sys.exit(main(words))
