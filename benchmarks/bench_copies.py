"""What of planted copies is found: SemDeDup at 0.95 with MiniLM beside MinHash at 0.8, on real text.

Docstrings of the standard library of 200 to 1,000 characters, each with one changed copy; the share of copies
that are joined to their original, and the share of the originals that are joined to each other (which nobody planted).
"""

import random
import re

import numpy as np

from benchmarks.bench_embed import docstrings, fresh_cache

TEXTS = 400


def reordered(text, draw):
    parts = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(draw.sample(parts, len(parts)))


def one_word(text, draw):
    words = text.split(" ")
    place = draw.choice([i for i, word in enumerate(words) if word.strip()])
    words[place] = draw.choice(["blue", "seven", "never", "window", "always"])
    return " ".join(words)


def negated(text, _):
    return re.sub(r"\b(is|are|returns?|will|can|must|should)\b", r"\1 not", text, count=1, flags=re.IGNORECASE)


def number(text, draw):
    return re.sub(r"\d+", lambda found: str(int(found[0]) + draw.randint(1, 9)), text)


def cut(share):
    return lambda text, _: text[: int(len(text) * share)]


CHANGES = {
    "case": lambda text, _: text.upper(),
    "punctuation": lambda text, _: re.sub(r"[^\w\s]", "", text),
    "white space": lambda text, _: " ".join(text.split()),
    "one word changed": one_word,
    "a verb negated": negated,
    "numbers changed": number,
    "last 10 % cut off": cut(0.9),
    "last 30 % cut off": cut(0.7),
    "second half cut off": cut(0.5),
    "sentences reordered": reordered,
}


def run():
    from foundry.prune.minhash import MinHash
    from foundry.prune.semdedup import SemDeDup

    originals = [text for text in docstrings() if len(text) >= 200][:TEXTS]
    rows = []
    with fresh_cache():
        for name, change in CHANGES.items():
            draw = random.Random(1)
            pairs = [(text, change(text, draw)) for text in originals]
            pairs = [(text, copy) for text, copy in pairs if text != copy]
            found = [joined(pruner, pairs) for pruner in (SemDeDup(keep="first"), MinHash(keep="first"))]
            what = f"{name}: copies found of {len(pairs)}"
            rows.append({"what": what, "ours": found[0], "peer": found[1], "unit": "share"})
        alone = [len(p.prune(dataset(originals)).removed) / len(originals) for p in (SemDeDup(), MinHash())]
    rows.append({"what": f"removed of {len(originals)} originals", "ours": alone[0], "peer": alone[1], "unit": "share"})
    return {"name": "planted copies (peer: MinHash, Jaccard 0.8)", "rows": rows}


def joined(pruner, pairs):
    """Share of the copies that went, with their original or something joined to it standing for them."""
    texts = [text for pair in pairs for text in pair]
    gone = {removed.index for removed in pruner.prune(dataset(texts)).removed}
    return float(np.mean([2 * number + 1 in gone or 2 * number in gone for number in range(len(pairs))]))


def dataset(texts):
    from foundry.records import Dataset

    return Dataset("copies", "text", [{"text": text} for text in texts], [], "", "")


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
