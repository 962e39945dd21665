"""Runs an entry as a Hydra app, with mistakes told in one line and the right exit code.

Hydra does the composing, sweeping and launching; this module looks at the composed config first, before
Hydra writes a file or builds anything, and turns every failure into the contract of errors.py.
"""

import argparse
import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from foundry import console, multirun, ranks
from foundry.composer import Composer, checking, jobs, swept
from foundry.config import CONF, build, plugin
from foundry.errors import EXIT_BUG, EXIT_INTERRUPTED, ConfigError, FoundryError
from foundry.mistakes import explain, first_line
from foundry.replay import Manifest, expand, parse, settle
from foundry.run import discard
from foundry.sweep import Optimize, Sweep

Task = Callable[[DictConfig], Any]
T = TypeVar("T")
Check = Callable[[DictConfig, Sequence[str]], Any]

_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


def main(task: Task, check: Check, config_name: str, argv: Sequence[str] | None = None) -> int:
    """Run `task` as a Hydra app and return its exit code.

    Args:
        task: Takes the composed config; run once for each job.
        check: Builds the typed manifest from the config and the overrides, raising ConfigError.
        config_name: The primary config under conf/.
        argv: Command-line arguments without the program; those of the process by default.
    """
    prepare()
    if not ranks.leads():
        console.mute()
        return guarded(ranks.follow)
    try:
        return guarded(lambda: _hydra_app(task, check, config_name, list(sys.argv[1:] if argv is None else argv)))
    finally:
        ranks.share(None)


def guarded(work: Callable[[], Any]) -> int:
    """Run `work`; show a failure of the user's as one line, a bug with its traceback; return the exit code."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        work()
    except KeyboardInterrupt:
        print("foundry: interrupted; nothing was published", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except FoundryError as error:
        if full:
            traceback.print_exc()
        print(f"foundry: {error.kind}: {_one_line(str(error))}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_BUG if stop.code else 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return EXIT_BUG
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())


def prepare() -> None:
    """Keep tokenizers from warning whenever a process forks, and oneDNN from filling the memory with compiled code.

    oneDNN compiles a product for each shape that it meets, and it and torch keep 1,024 of them each. Packed batches are
    of another length at every step: 3.1 GiB were estimated for ORPO, 4.6 measured. 128 are more than a step has.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _hydra_app(task: Task, check: Check, config_name: str, argv: list[str]) -> None:
    signal.signal(signal.SIGTERM, _stop)
    parser, args = _arguments(argv, f"foundry {config_name}")
    args.overrides = expand(args.overrides)
    args.config_path = str(Path(args.config_path or CONF).absolute())
    composer = Composer(args.config_name or config_name, args.config_path, args.config_dir)
    runs = not (args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)
    sweeps = False
    with checking():
        if args.cfg == "job":  # once, and with the file that the job may replay, which Hydra knows nothing of
            print(_shown(composer, args), end="")  # noqa: T201
            return
        if not args.shell_completion:
            sweeps = check_ahead(check if runs else None, composer, args.overrides, multirun=args.multirun)
        if args.package and not composer.has(args.package, args.overrides):
            raise ConfigError(f"--package: the config has no {args.package!r}")
    job = task if sweeps else _undisturbed(task)
    sweep = _sweep(composer, args.overrides, config_name) if sweeps and runs else nullcontext()
    try:
        with sweep, _hydra_raises(), nullcontext() if runs else checking():
            _run_hydra(args, parser, task_function=job, config_path=None, config_name=config_name)
    except _FromJob as failure:
        raise failure.__cause__ or failure from None
    except FoundryError:
        raise
    except Exception as error:
        line = composer.explained(error, args.overrides)
        if runs and line is None:
            raise
        raise ConfigError(line or first_line(error)) from error


@contextmanager
def _sweep(composer: Composer, overrides: list[str], entry: str) -> Iterator[None]:
    """Record a sweep as a parent run around its jobs; its folder is settled here, for jobs in other processes too.

    Raises:
        ConfigError: There is nothing to search, or nothing to seek.
    """

    def plain(node: DictConfig) -> dict[str, Any]:
        return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))

    cfg = composer.compose(overrides, RunMode.MULTIRUN)
    HydraConfig.instance().cfg = None  # what is known within a job alone is not for the sweep as a whole
    given = parse([*overrides, *swept(cfg)])
    varied = [override.get_key_element() for override in given if override.is_sweep_override()]
    sweep = build(Sweep, plain(cfg.sweep), "sweep")
    optimize = build(Optimize, plain(cfg.optimize), "optimize")
    sweeper = plugin(cfg.hydra.sweeper, "hydra.sweeper")
    if hasattr(sweeper, "check"):  # one of ours, which searches
        sweeper.check(varied, optimize)
    if cfg.dry_run:
        yield
        return
    typed, folder = list(overrides), Path(str(cfg.hydra.sweep.dir))
    overrides.append(f"hydra.sweep.dir={json.dumps(str(folder))}")
    with multirun.parent(folder, entry, str(cfg.job_id), typed, varied, sweep, optimize):
        yield


def _shown(composer: Composer, args: argparse.Namespace) -> str:
    """The YAML of the job, or of its part that `--package` names.

    Raises:
        ConfigError: The config cannot be composed, or has no such part.
    """
    cfg = composer.compose(args.overrides)
    _refuse_sweeps(parse(args.overrides))
    node, heading = settle(cfg, args.overrides), ""
    try:
        if args.package not in {None, "_global_"}:
            node, heading = OmegaConf.select(node, args.package), f"# @package {args.package}\n"
        if OmegaConf.is_config(node):
            return heading + OmegaConf.to_yaml(node, resolve=args.resolve)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error) or first_line(error)) from error
    if node is None:
        raise ConfigError(f"--package: the config has no {args.package!r}")
    return f"{node}\n"


def _arguments(argv: list[str], program: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line with Hydra's own parser.

    Raises:
        ConfigError: A flag is unknown, or flags contradict each other.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; {program} --hydra-help lists the flags")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse's own prints the usage too
    args = parser.parse_intermixed_args(argv)
    flags = ("run", "multirun", "cfg", "info", "shell_completion")
    given = ["--" + flag.replace("_", "-") for flag in flags if getattr(args, flag)]
    if len(given) > 1:
        refuse(f"{' and '.join(given)} exclude each other")
    if args.resolve and not (args.cfg or args.help):
        refuse("--resolve goes with --cfg or --help")
    if args.experimental_rerun:
        refuse("--experimental-rerun would load a pickle; manifest=RUN/manifest.yaml runs a job again")
    return parser, args


def one_job(
    cfg: DictConfig, build: Callable[..., Manifest], work: Callable[[Any, Path], Any], rehearse: Callable[[Any], None]
) -> Any:
    """Do one job of a Hydra run or sweep; one that writes nothing, such as a dry run, leaves no directory.

    Args:
        cfg: The composed config.
        build: Builds the typed manifest from the config and the overrides.
        work: Does the job in its run directory.
        rehearse: Does what comes before anything is written.

    Returns:
        Where the run directory is; in a sweep, what the job came to.
    """
    prepare()  # a launcher may have brought the job to another machine
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:  # Hydra's copy of the command line; each job has its manifest.yaml
        (Path(hydra.sweep.dir) / "multirun.yaml").unlink(missing_ok=True)
    manifest, run_dir = build(cfg, hydra.overrides.task), Path(hydra.runtime.output_dir)
    try:
        if manifest.dry_run:
            rehearse(manifest)
        elif hydra.mode == RunMode.MULTIRUN:
            return multirun.job(manifest, run_dir, Path(hydra.sweep.dir), hydra.overrides.task, work)
        else:
            work(manifest, run_dir)
    finally:
        discard(run_dir)
    return str(run_dir)


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Make Hydra raise its errors instead of printing them and exiting with 1; leave its state as it was."""
    before, config = os.environ.get("HYDRA_FULL_ERROR"), HydraConfig.instance().cfg
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
        HydraConfig.instance().cfg = config


class _FromJob(BaseException):
    """Carries a user's failure past Hydra, which would print a line of its own about it."""


def _undisturbed(task: Task) -> Task:
    @functools.wraps(task)
    def wrapped(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except FoundryError as error:
            raise _FromJob from error

    return wrapped


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def composed(config_name: str, overrides: Sequence[str], check: Callable[[DictConfig, Sequence[str]], T]) -> T:
    """Compose a job without running it, as the Python API does.

    Raises:
        ConfigError: A setting is wrong.
    """
    prepare()
    overrides = expand(overrides)
    with checking():
        cfg = Composer(config_name, str(CONF)).compose(overrides)
        _refuse_sweeps(parse(overrides))
        return check(cfg, overrides)


def check_ahead(check: Check | None, composer: Composer, overrides: Sequence[str], *, multirun: bool) -> bool:
    """Compose and build every job before Hydra makes a folder or the first job trains.

    Args:
        check: Builds the typed manifest; None where the config is only to be shown.
        composer: Composes.
        overrides: As on the command line.
        multirun: Whether `-m` is given.

    Returns:
        Whether Hydra will sweep.

    Raises:
        ConfigError: A setting of any job is wrong.
    """
    cfg = composer.compose(overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
    if not (multirun or cfg.hydra.mode == RunMode.MULTIRUN):
        _refuse_sweeps(parse(overrides))
        if check:
            check(cfg, overrides)
        return False
    for job in jobs(composer, cfg, overrides):
        if check:
            check(composer.compose(job), job)
    return True


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            key, text = override.get_key_element(), override.get_value_string()
            raise ConfigError(f"{key}: found several values, {text}; -m sweeps over them, {key}=[{text}] is a list")
