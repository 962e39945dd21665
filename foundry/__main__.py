"""The command `foundry`: a verb, then that verb's own arguments."""

import argparse
import json
import sys
from collections.abc import Sequence

VERBS = {
    "train": "run a job: select → prune → train → examine → package → publish (a Hydra app: --help, -m, --cfg job)",
    "merge": "fuse trained models: parents → recipe → examine → package → publish (a Hydra app too)",
    "examine": "examine a run, a release, an adapter or a model as it is: foundry examine PATH [overrides of train]",
    "curate": "prepare a data set once: select → prune → separate → Parquet shards with a lot (a Hydra app too)",
    "verify": "recompute the lot of a run, a release or a curated set, and say what differs",
    "compare": "put runs side by side: a table, one HTML page, CSV, JSON or Markdown",
    "ui": "open the MLflow UI on the store that runs are recorded in",
    "schema": "print the JSON schema of the manifest, for editors",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words else "--help"
    if verb in {"-h", "--help", "help"}:
        print(_usage())  # noqa: T201
        return 0
    if verb == "--version":
        from foundry import __version__

        print(f"foundry {__version__}")  # noqa: T201
        return 0
    if verb == "train":
        from foundry.train import main as train

        return train(words[1:])
    if verb == "merge":
        from foundry.merge import main as merge

        return merge(words[1:])
    if verb == "curate":
        from foundry.curate import main as curate

        return curate(words[1:])
    from foundry.app import guarded

    if verb == "examine":
        return _examine(words[1:])
    return guarded(lambda: _run(verb, words[1:]))


def _examine(words: Sequence[str]) -> int:
    """Examine what is there already; returns the exit code."""
    from foundry.app import guarded
    from foundry.reexamine import USAGE, overrides
    from foundry.train import main as train

    if words[:1] in (["-h"], ["--help"]):
        print(USAGE)  # noqa: T201
        return 0
    job: list[str] = []
    return guarded(lambda: job.extend(overrides(words))) or train(job)


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  foundry {verb:<{width}}  {text}" for verb, text in VERBS.items())
    title = "foundry: from a base model and a data set to a small, trusted student model"
    return f"{title}\n\n{verbs}\n\n  foundry VERB --help says more."


def _run(verb: str, words: list[str]) -> None:
    from foundry.config import listed, nearest
    from foundry.errors import ConfigError

    parser = argparse.ArgumentParser(prog=f"foundry {verb}", description=VERBS.get(verb))
    if verb == "verify":
        places = "a run directory, a release, a clone or a curated set; s3://…, models:/name@alias, or a git URL@tag"
        parser.add_argument("path", help=places)
        parser.add_argument("--key", help="the public key that the release must be signed with, PEM")
        from foundry.verify import report

        args = parser.parse_args(words)
        report(args.path, args.key)
    elif verb == "compare":
        from foundry import compare

        compare.arguments(parser)
        compare.run(parser.parse_args(words))
    elif verb == "ui":
        parser.add_argument("--port", type=int, default=None, help="a free one by default")
        from foundry.tracking import serve_ui

        serve_ui(parser.parse_args(words).port)
    elif verb == "schema":
        parser.add_argument(
            "entry", nargs="?", choices=("train", "merge", "curate"), default="train", help="whose job it is"
        )
        from foundry.schema import manifest_schema

        print(json.dumps(manifest_schema(parser.parse_args(words).entry), indent=2))  # noqa: T201
    else:
        raise ConfigError(f"there is no verb {verb!r}{nearest(verb, VERBS)} (allowed: {listed(VERBS)})")


if __name__ == "__main__":
    sys.exit(main())
