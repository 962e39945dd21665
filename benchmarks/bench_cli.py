"""How long the command takes to answer, beside a bare Hydra app with the same config."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from foundry.config import CONF

BARE = """
import hydra
from omegaconf import OmegaConf
OmegaConf.register_new_resolver("run_dir", lambda *_: ".")

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="train")
def main(cfg):
    pass

main()
"""
CASES = {
    "--help": ["--help"],
    "--cfg job": ["--cfg", "job"],
    "unknown key": ["method.adapter.rnak=8"],
    "value out of range": ["method.adapter.rank=0"],
    "unknown option": ["method=lroa"],
}
RUNS = 7


def seconds(command, folder):
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return time.perf_counter() - start


def run():
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE.format(conf=str(CONF)))
        rows = []
        for what, words in CASES.items():
            ours, peer = [], []
            for _ in range(RUNS):
                ours.append(seconds([sys.executable, "-m", "foundry", "train", *words], folder))
                peer.append(seconds([sys.executable, str(bare), *words], folder))
            rows.append({"what": what, "ours": statistics.median(ours), "peer": statistics.median(peer), "unit": "s"})
    return {"name": "command line (peer: a bare Hydra app)", "rows": rows}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
