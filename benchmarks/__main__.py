"""Run every benchmark, or those named: `python -m benchmarks [cli] [tracking]`; results go to benchmarks/results."""

import argparse
import importlib
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from foundry.lot import libraries

HERE = Path(__file__).parent
RESULTS = HERE / "results"
UNRATED = {"share", "power of N"}


def main(argv):
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"all, if none is named: {', '.join(known)}")
    names = parser.parse_args(argv).names
    if unknown := set(names) - set(known):
        parser.error(f"there is no benchmark {min(unknown)!r} (known: {', '.join(known)})")
    RESULTS.mkdir(exist_ok=True)
    for name in names or known:
        print(f"{name} …", flush=True)
        result = importlib.import_module(f"benchmarks.bench_{name}").run()
        if result is None:  # what it measures is not installed
            continue
        result |= {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "libraries": libraries()}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    table = markdown()
    (RESULTS / "README.md").write_text(table)
    print(table)


def machine():
    import torch

    return f"{torch.cpu.get_capabilities()['cpu_name']}, {torch.get_num_threads()} threads, {platform.system()}"


def markdown():
    """Every result in one table; a ratio is ours over the peer's; a row need not have a peer."""
    lines = [
        "# Benchmarks",
        "",
        "Repeat with `make bench`. Medians of alternating runs on a shared, noisy machine: look at the ratios. Below 1",
        "is better; shares and exponents have no ratio.",
        "",
        "| benchmark | what | ours | peer | unit | ours / peer | measured |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        for row in result["rows"]:
            digits = 4 if row["unit"] == "share" else 3
            ours, peer = (f"{row[who]:.{digits}g}" if row[who] is not None else "" for who in ("ours", "peer"))
            ratio = f"{row['ours'] / row['peer']:.2f}" if row["peer"] and row["unit"] not in UNRATED else ""
            figures = f"{ours} | {peer} | {row['unit']} | {ratio}"
            lines.append(f"| {result['name']} | {row['what']} | {figures} | {result['date']}, {result['machine']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
