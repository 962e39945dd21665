"""Decontamination: milliseconds a MB of training text, beside peers that read the same JSONL file.

The training file is the standard library's source in pieces of 3,000 characters; one in a hundred holds a question
of the evaluation set somewhere inside. The peers are a plain Python set of 8-grams, and allenai/decon (package
`decontaminate`, which needs Python 3.12; name an interpreter that has it in DECON_PYTHON, or it is left out).
"""

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from foundry.examine.overlap import Reference, find

ROUNDS = 5
PIECE = 3000
QUESTIONS = 500
DECON = """
import sys, time, decon
config = decon.Config(*sys.argv[1:], verbose=False)
begun = time.perf_counter()
decon.detect(config)
print("seconds", time.perf_counter() - begun)
"""


def pieces():
    """Source of the standard library, in pieces of PIECE characters."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from (text[i : i + PIECE] for i in range(0, len(text), PIECE))


def questions(draw):
    """Made-up questions of 30 words, so that none stands in the training text unless it was planted."""
    words = sorted({word for text in list(pieces())[:200] for word in re.findall(r"[a-z]{3,9}", text)})
    return [" ".join(draw.choices(words, k=30)) for _ in range(QUESTIONS)]


def write(folder):
    draw = random.Random(1)
    asked, texts, planted = questions(draw), list(pieces()), set()
    draw.shuffle(texts)
    for i in range(0, len(texts), 100):
        at = draw.randrange(len(texts[i]))
        question = draw.choice(asked)
        texts[i] = f"{texts[i][:at]}\n{draw.choice([question, question.upper(), question.replace(' ', ', ')])}\n"
        texts[i] += texts[i][:PIECE]
        planted.add(i)
    for name in ("train", "evals"):
        (folder / name).mkdir()
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "train" / "train.jsonl").write_text("\n".join(lines))
    evals = [
        {"eval_key": "made", "eval_instance_index": i, "split": "test", "question": text, "answer": "", "passage": "",
         "doc_id": i, "fingerprint": str(i), "is_correct": True}
        for i, text in enumerate(asked)
    ]  # fmt: skip
    (folder / "evals" / "made.jsonl").write_text("\n".join(map(json.dumps, evals)))
    return asked, planted, sum(len(text.encode()) for text in texts) / 1e6


def read(folder):
    with (folder / "train" / "train.jsonl").open() as file:
        yield from map(json.loads, file)


def ours(folder, asked, n):
    begun = time.perf_counter()
    found = {finding.train for finding in find(read(folder), [Reference("made", [{"text": q} for q in asked])], n)}
    return time.perf_counter() - begun, found


def plain(folder, asked):
    """8-grams of lower-case words in a set of hashes."""
    word = re.compile(r"[^\W_]+")

    def grams(text):
        words = word.findall(text.lower())
        return map(hash, zip(*(words[i:] for i in range(8)), strict=False))

    begun = time.perf_counter()
    known = {gram for question in asked for gram in grams(question)}
    found = {i for i, row in enumerate(read(folder)) if not known.isdisjoint(grams(row["text"]))}
    return time.perf_counter() - begun, found


def decon(folder, python):
    words = [str(folder / "train"), str(folder / "evals"), str(folder / "report")]
    said = subprocess.run([python, "-c", DECON, *words], capture_output=True, text=True, check=True)
    reports = [json.loads(line) for path in (folder / "report").rglob("*.jsonl") for line in path.open()]
    return float(said.stdout.rsplit("seconds", 1)[1]), {report["training_line"] for report in reports}


def run():
    python = sys.executable if find_spec("decon") else os.environ.get("DECON_PYTHON")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        asked, planted, size = write(folder)
        contenders = {
            "13-grams": lambda: ours(folder, asked, 13),
            "8-grams": lambda: ours(folder, asked, 8),
            "a set of hashed 8-grams": lambda: plain(folder, asked),
        }
        if python:
            contenders["decon"] = lambda: decon(folder, python)
        times, missed = {name: [] for name in contenders}, {}
        for _ in range(ROUNDS):
            for name, contender in contenders.items():
                seconds, found = contender()
                times[name].append(1000 * seconds / size)
                missed[name] = (len(planted - found), len(found - planted))
    assert missed["13-grams"] == missed["8-grams"] == (0, 0), missed
    rows = [
        {"what": f"{name}, {peer}", "ours": median(times[name]), "peer": median(times[peer]), "unit": "ms/MB"}
        for peer in list(contenders)[2:]
        for name in list(contenders)[:2]
    ]
    return {"name": "decontamination", "rows": rows, "missed_and_false": missed, "megabytes": round(size, 1)}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
