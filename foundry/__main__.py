"""The command `foundry`: a verb, then that verb's own arguments."""

import argparse
import json
import sys
from collections.abc import Sequence

VERBS = {
    "train": "run a job: select → prune → train → examine → package → publish (a Hydra app: --help, -m, --cfg job)",
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
    if verb == "curate":
        from foundry.curate import main as curate

        return curate(words[1:])
    from foundry.app import guarded

    return guarded(lambda: _run(verb, words[1:]))


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
        parser.add_argument("path", help="a run directory, a release or a curated set")
        from foundry.verify import report

        report(parser.parse_args(words).path)
    elif verb == "compare":
        from foundry import compare

        compare.arguments(parser)
        compare.run(parser.parse_args(words))
    elif verb == "ui":
        parser.add_argument("--port", type=int, default=None, help="a free one by default")
        from foundry.tracking import serve_ui

        serve_ui(parser.parse_args(words).port)
    elif verb == "schema":
        parser.add_argument("entry", nargs="?", choices=("train", "curate"), default="train", help="whose job it is")
        from foundry.schema import manifest_schema

        print(json.dumps(manifest_schema(parser.parse_args(words).entry), indent=2))  # noqa: T201
    else:
        raise ConfigError(f"there is no verb {verb!r}{nearest(verb, VERBS)} (allowed: {listed(VERBS)})")


if __name__ == "__main__":
    sys.exit(main())
