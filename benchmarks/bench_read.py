"""Reading JSON Lines into checked, hashed rows, beside `datasets.load_dataset("json")` and plain `json.loads`."""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT, RUNS = 200_000, 5
PEAK = "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024)"
OURS = "from foundry.data.files import Files; import sys; rows = Files(path=sys.argv[1]).load(); "
PEER = "import json, sys; rows = [json.loads(line) for line in open(sys.argv[1], 'rb')]; "


def write(path, count=COUNT):
    draw = random.Random(0)
    words = Path(random.__file__).read_text().split()
    with path.open("w") as file:
        for i in range(count):
            asked, answer = " ".join(draw.choices(words, k=20)), " ".join(draw.choices(words, k=10))
            file.write(json.dumps({"prompt": f"{i}: {asked}", "completion": answer}) + "\n")


def ours(path):
    from foundry.data.files import Files

    dataset = Files(path=str(path)).load()
    assert len(dataset.train) + len(dataset.eval) == COUNT


def with_datasets(path):
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        assert len(load_dataset("json", data_files=str(path), split="train", cache_dir=cache)) == COUNT


def with_json(path):
    with path.open("rb") as file:
        assert len([json.loads(line) for line in file]) == COUNT


def microseconds(read, path):
    start = time.perf_counter()
    read(path)
    return (time.perf_counter() - start) / COUNT * 1e6


def peak(code, path):
    command = [sys.executable, "-c", code + PEAK, str(path)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run():
    readers = {"ours": ours, "load_dataset": with_datasets, "json.loads": with_json}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path)
        for read in readers.values():  # imports and the page cache
            read(path)
        taken = {name: [] for name in readers}
        for _ in range(RUNS):
            for name, read in readers.items():
                taken[name].append(microseconds(read, path))
        median = {name: statistics.median(times) for name, times in taken.items()}
        rows = [
            {"what": f"JSONL, beside {name}", "ours": median["ours"], "peer": median[name], "unit": "µs/row"}
            for name in ("load_dataset", "json.loads")
        ]
        rows.append(
            {
                "what": "peak memory, beside a list of json.loads",
                "ours": peak(OURS, path),
                "peer": peak(PEER, path),
                "unit": "MiB",
            }
        )
    return {"name": f"reading {COUNT:,} rows (ours also checks, converts and hashes each)", "rows": rows}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
