"""Run directories as jobs leave them, without the training, and publishers of every kind for them."""

import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from foundry import lot, store
from foundry.outcome import SEALED
from foundry.publish.git_lfs import GitLfsRegistry
from foundry.publish.local import LocalRegistry
from foundry.publish.mlflow import MlflowRegistry
from foundry.publish.s3 import S3Registry
from foundry.records import BaseModel, Checkpoint, Measurement, Verdict, plain
from foundry.run import write_json, write_yaml

SETTINGS = {"job_id": "job", "method": {"rank": 4}}
KINDS = ("local", "git_lfs", "s3", "mlflow")
HAS_LFS = shutil.which("git-lfs") is not None


def artefact(folder: Path, seed: int = 0, weights: bytes = bytes(range(256))) -> tuple[Checkpoint, Verdict]:
    """Write a run directory; another seed makes another lot."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "adapter_model.safetensors").write_bytes(weights)
    (folder / "model" / "tokenizer.json").write_text("{}")
    write_yaml(folder / "manifest.yaml", SETTINGS)
    files = {f"model/{name}": sha for name, sha in lot.digest_folder(folder / "model").items()}
    digests = {"train": "d" * 64, "pruned": "e" * 64, "eval": "f" * 64}
    base = {"name": "base", "files": {"model.safetensors": "b" * 64}}
    made = lot.make(dataset=digests, settings=SETTINGS, base=base, files=files, seed=seed, hardware={})
    write_json(folder / "lot.json", made)
    verdict = Verdict(True, [Measurement("logic_score", 0.8, 0.5, 300)], "f" * 64, made["lot"])
    write_json(folder / "verdict.json", plain(verdict))
    (folder / "model" / "README.md").write_text(f"lot {made['lot']}\r\n")
    for name in ("report.html", "removed.jsonl", "quarantine.jsonl", "loss.csv"):
        (folder / name).write_text(name)
    lot.seal(folder, SEALED)
    (folder / "checkpoints").mkdir()
    (folder / "foundry.log").write_text("stays here")
    base_model = BaseModel("base", folder, {}, "", 1)
    return Checkpoint(folder / "model", "adapter", base_model, {}, "", made["lot"]), verdict


def publisher(kind: str, place: Path | str, **settings):
    """A publisher of this kind into a registry of its own below `place`, or into the one that it names."""
    settings = {"name": "job", "tag": "v1"} | settings
    if kind == "local":
        return LocalRegistry(registry=str(place), **settings)
    if kind == "git_lfs":
        if not Path(place).exists():
            subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(place)], check=True)
        return GitLfsRegistry(**{"registry": Path(place).as_uri()} | settings)
    if kind == "s3":
        return S3Registry(registry=f"s3://shelf/{Path(place).name}", **settings)
    if not Path(f"{place}.db").exists():
        shutil.copyfile(_empty_store(), f"{place}.db")
    return MlflowRegistry(**{"registry": f"sqlite:///{place}.db"} | settings)


_PLACE = tempfile.TemporaryDirectory()


@cache
def _empty_store() -> Path:
    """MLflow takes seconds to make a store; one that is empty can be copied."""
    path = Path(_PLACE.name) / "mlflow.db"
    store._import_mlflow()
    store._make(path)
    return path


def loaded(path: Path):
    return json.loads(path.read_text())
