"""Where the work of a curation is done: in this process, or on the workers of a Ray cluster.

A stage that falls into independent parts asks `spread` to do them, and gets the results in the order of the parts:
so nothing that follows can tell one engine from another.
"""

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from foundry.config import Component
from foundry.errors import ConfigError, FoundryError, HardwareError

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
RETRIES = 2
"""How often a part is begun again after its worker died."""

T = TypeVar("T")
R = TypeVar("R")


class Engine(Component, ABC):
    """Does the independent parts of a stage."""

    @abstractmethod
    def map(self, function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """Apply a function to each part; the results come in the order of the parts.

        Args:
            function: Importable by its name, as another process may have to find it.
            parts: What it is applied to; everything in them can be pickled.

        Raises:
            FoundryError: What the function raised.
        """


class Local(Engine):
    """Does one part after the other in this process, and each only when its result is asked for."""

    def map(self, function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """Apply the function here."""
        return map(function, parts)


class Ray(Engine):
    """Does the parts on a Ray cluster, through Ray Data.

    Attributes:
        address: The cluster's head, such as `ray://host:10001` or `auto`; null starts one on this machine.
        workers: Workers that are started here; null for one a processor. With an address the cluster decides.
    """

    address: str | None = Field(None, min_length=1)
    workers: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _a_cluster_has_its_own_workers(self) -> Self:
        if self.address is not None and self.workers is not None:
            raise ValueError("workers is for a Ray started here; with an address, the cluster decides")
        return self

    def map(self, function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """Apply the function on the workers.

        Raises:
            ConfigError: Ray is not installed.
            HardwareError: There is no such cluster, or a worker was lost.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("engine=ray: ray is not installed; pip install 'model-foundry[ray]'") from error
        ours = not ray.is_initialized()
        try:
            if ours:
                logging.getLogger("ray").setLevel(logging.ERROR)  # what goes wrong is raised, too
                ray.init(self.address, num_cpus=self.workers, include_dashboard=False, **_QUIET)
            yield from _mapped(function, parts)
        except ray.exceptions.RayTaskError:  # a bug in the function
            raise
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise HardwareError(f"engine=ray: {' '.join(str(error).split()):.300}") from error
        finally:
            if ours:
                ray.shutdown()


def _mapped(function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """Send every part through Ray Data, one a batch, and fetch what comes back."""
    from ray import cloudpickle
    from ray.data import DataContext, from_items

    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    given = from_items([{"part": cloudpickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
    answer = partial(_answer, cloudpickle.dumps(function))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # by 2.64, max_retries will have another name
        done = given.map_batches(answer, batch_size=1, batch_format="pyarrow", max_retries=RETRIES)
    for table in done.iter_batches(batch_size=1, batch_format="pyarrow"):
        result = cloudpickle.loads(table["answer"][0].as_py())
        if isinstance(result, FoundryError):
            raise result
        yield result


@lru_cache(1)
def _unpacked(function: bytes) -> Callable[[Any], Any]:
    """The function, the same for all parts that a worker does: what it has loaded for one serves the next."""
    from ray import cloudpickle

    unpacked: Callable[[Any], Any] = cloudpickle.loads(function)
    return unpacked


def _answer(function: bytes, batch: Any) -> Any:
    """On a worker: do one part; a user's failure travels as a value, for Ray would wrap it."""
    import pyarrow as pa
    from ray import cloudpickle

    try:
        result = _unpacked(function)(cloudpickle.loads(batch["part"][0].as_py()))
    except FoundryError as error:
        result = error
    return pa.table({"answer": pa.array([cloudpickle.dumps(result)], pa.large_binary())})


_ENGINE: ContextVar[Engine] = ContextVar("engine", default=Local())  # noqa: B039  # it is frozen


@contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Let `spread` work on this engine for as long as the `with` block lasts."""
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def spread(function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """Apply a function to each part on the engine in use, as `Engine.map` says; in this process by default."""
    return _ENGINE.get().map(function, parts)
