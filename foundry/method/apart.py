"""Training with unsloth, in a process of its own.

unsloth must be the first of its libraries to be imported, and it changes trl, transformers and peft for good. So it is
imported in a fresh process, which trains and writes the checkpoint; the examination that follows, and the next job of a
sweep, run in one that knows nothing of it.
"""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry import console
from foundry.errors import HardwareError
from foundry.method import Observer

if TYPE_CHECKING:
    from foundry.method.backends import Work


class CannotImportError(Exception):
    """unsloth cannot be imported; the message says why."""


def apart(work: "Work", run_dir: Path, observer: Observer, device: str) -> Mapping[str, float]:
    """Do the work in a process that imports unsloth first; its metrics of each step come here.

    Args:
        work: What is done there.
        run_dir: Where its log lies.
        observer: Who sees the metrics.
        device: Where tensors live; unsloth would take a GPU unasked.

    Raises:
        CannotImportError: It could not be imported.
        HardwareError: The process was killed.
        FoundryError: As the work does.
    """
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "foundry.method.apart", str(theirs.fileno())]
    environment = os.environ | ({"UNSLOTH_FORCE_CPU": "1"} if device == "cpu" else {})
    with subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()]) as process:  # noqa: S603  # our own module
        theirs.close()
        try:
            with suppress(ConnectionError):  # who cannot import unsloth says so, and reads nothing
                ours.send((work, run_dir))
            return _followed(ours, observer)
        except (EOFError, ConnectionError):
            raise HardwareError(
                f"the process that trains with unsloth ended with {process.wait()} and without a word, most likely for "
                f"lack of memory; lower compute.batch_size and raise compute.grad_accum, or take compute.backend=peft"
            ) from None
        finally:
            process.terminate()
            ours.close()


def _followed(connection: "Connection[Any, Any]", observer: Observer) -> Mapping[str, float]:
    while True:
        kind, content = connection.recv()
        if kind == "metrics":
            observer.metrics(*content)
        elif kind == "done":
            return dict(content)
        else:
            raise content


class _Telling:
    """An observer that tells the process that waits."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._connection.send(("metrics", (dict(values), step)))


def main() -> None:
    """Import unsloth, do the work that comes through the pipe, and send back what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who waits for this process ends it
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # a banner, and advice
            import unsloth  # noqa: F401
    except Exception as error:  # noqa: BLE001  # whatever its dependencies raise
        connection.send(("failed", CannotImportError(" ".join(f"{type(error).__name__}: {error}".split())[:300])))
        return
    work, run_dir = connection.recv()
    threading.Thread(target=_end_with_parent, args=[connection], daemon=True).start()
    logging.getLogger().handlers.clear()  # unsloth's writes to the terminal
    handler = console.log_to(run_dir / console.LOG)
    try:
        connection.send(("done", work("unsloth", _Telling(connection))))
    except Exception as error:  # noqa: BLE001  # the process that waits tells it
        error.add_note(traceback.format_exc())
        connection.send(("failed", error))
    finally:
        console.stop_log(handler)


def _end_with_parent(connection: "Connection[Any, Any]") -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    from foundry.method.apart import main as importable_main  # so that its classes have the names that are sent

    importable_main()
