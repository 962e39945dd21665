"""A million lines in bounded memory, measured in a process of its own."""

import json
import subprocess
import sys

import pytest

LOAD = """
import json, resource, sys
from pathlib import Path
from foundry.data.files import Files

dataset = Files(path=sys.argv[1]).load()
lines = [bad.line for bad in dataset.quarantined]
try:  # on Linux, ru_maxrss is at least what the process that started this one had
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([len(dataset.train) + len(dataset.eval), lines, peak]))
"""


@pytest.mark.slow
def test_a_million_lines_with_ten_thousand_bad_ones_stay_under_a_gigabyte(tmp_path):
    path = tmp_path / "million.jsonl"
    bad = '{"prompt": "half a line'
    with path.open("w") as file:
        for i in range(1_000_000):
            row = {
                "prompt": f"Question {i}: " + "which of these words is it? " * 4,
                "completion": f"It is word {i}. " * 4,
            }
            file.write(f"{bad if i % 100 == 50 else json.dumps(row)}\n")
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    kept, lines, peak = json.loads(done.stdout)
    assert kept == 990_000
    assert lines == list(range(51, 1_000_001, 100))
    assert peak < 10**9  # 2.3 times the text when this was written
