"""Several processes that torchrun started: the first runs the whole job, the others only train with it.

So rows are read, files written and words said once. The others wait, and are handed each training as something to call.
"""

import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from foundry.errors import ConfigError, TrainingError

FOREVER = timedelta(days=365)
"""How long the others wait: what comes before training, or between two of them, may take hours."""
_LOST = re.compile(r"^Dist\w*Error|gloo|NCCL")
_NUMBERS = count()


def world() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def leads() -> bool:
    """Whether this process is the one that runs the job."""
    return world() == 1 or os.environ["RANK"] == "0"


def local() -> tuple[int, int]:
    """This process's number on its machine, and how many there are on it."""
    return (int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])) if world() > 1 else (0, 1)


def share(work: Callable[[], Any] | None) -> None:
    """Have the other processes do this work as well; None lets them go.

    Args:
        work: What is pickled and called there.

    Raises:
        ConfigError: This process is one of the others.
    """
    if world() == 1:
        return
    if not leads():
        raise ConfigError("several processes: start the command, torchrun --nproc-per-node N -m foundry.train …")
    _store().set(f"foundry/{next(_NUMBERS)}", pickle.dumps(work))


def follow() -> None:
    """Do what the first process shares until it lets this one go."""
    store = _store()
    while True:
        key = f"foundry/{next(_NUMBERS)}"
        store.wait([key], FOREVER)
        work = pickle.loads(store.get(key))  # noqa: S301  # from a process of the same job
        if work is None:
            return
        work()


@contextmanager
def together() -> Iterator[None]:
    """Tell the loss of another process in one line; what ended it, it says itself.

    Raises:
        TrainingError: It does not answer any more.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not _LOST.search(f"{type(error).__name__}: {error}"):
            raise
        raise TrainingError(f"another of the {world()} processes has ended, and what it said tells why") from error


@cache
def _store() -> Any:
    """The key-value store that torchrun keeps for the processes that it starts."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://"))[0]
