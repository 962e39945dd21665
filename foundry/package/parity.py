"""Whether a step of the chain still answers like the student: token ids, distributions over the next token, answers.

The student, adapter on base in fp32, is asked once. Each later step is compared with it on the same tokens: those of a
prompt through the chat template and of the student's own greedy answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from foundry.config import Settings
from foundry.deliverables import Agreement
from foundry.package.llama import Llama

LIKELIEST = 256
"""Tokens whose log-probabilities llama.cpp is asked for; the rest count as one, so a divergence is a lower bound."""


class Bounds(Settings):
    """What a step must reach beside the student; bounds that are None are not asked for.

    Attributes:
        kl: Highest mean Kullback-Leibler divergence from the student's next-token distribution, in nats.
        top1: Lowest share of places whose likeliest token is the student's, ties aside (0 to 1).
        answers: Lowest share of golden prompts answered as the student answers them (0 to 1).
        drop: How far a metric of the examination may lie below the student's (0.02 is two points).
        smaller: Least share by which the file is smaller than the 16-bit one, asked of models of a billion parameters
            and more; in smaller ones the embedding weighs too much.
    """

    kl: float | None = Field(None, ge=0)
    top1: float | None = Field(None, ge=0, le=1)
    answers: float | None = Field(None, ge=0, le=1)
    drop: float | None = Field(None, ge=0, le=1)
    smaller: float | None = Field(None, ge=0, le=1)


class Parity(Settings):
    """What is asked of every step, and what each must reach.

    Attributes:
        prompts: Held-out prompts that are asked.
        golden: Further prompts, single questions without a system prompt of their own.
        places: Places of a prompt where distributions are compared, beside those of the answer.
        max_new_tokens: Tokens of an answer.
        tie: Tokens count as equally likely where the student's log-probabilities differ by so many nats at most: either
            may be a step's likeliest, and answers may part there.
        merged: Bounds of the fused model, in transformers.
        f16: Bounds of the 16-bit file.
        q8_0: Bounds of Q8_0.
        q4_k_m: Bounds of Q4_K_M.
        others: Bounds of every other quantisation.
    """

    prompts: int = Field(12, ge=0, le=1000)
    golden: tuple[str, ...] = ()
    places: int = Field(8, ge=1)
    max_new_tokens: int = Field(24, ge=1)
    tie: float = Field(0.25, ge=0)
    merged: Bounds = Bounds()
    f16: Bounds = Bounds()
    q8_0: Bounds = Bounds()
    q4_k_m: Bounds = Bounds()
    others: Bounds = Bounds()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.prompts and not self.golden:
            raise ValueError("expected prompts above 0, or golden prompts")
        return self


@dataclass(frozen=True)
class Probe:
    """A prompt and what the student makes of it.

    Attributes:
        messages: The conversation.
        ids: Its token ids through the student's chat template.
        answer: Token ids of the student's greedy answer.
        places: How many tokens stand before each place where distributions are compared.
        expected: Log-probabilities (places, vocabulary), fp32, in nats.
    """

    messages: Sequence[Mapping[str, Any]]
    ids: Sequence[int]
    answer: Sequence[int]
    places: Sequence[int]
    expected: Any

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer."""
        return [*self.ids, *self.answer]


Told = tuple[Callable[[Probe], Any], Callable[[Probe], Sequence[int]], Callable[[Probe], Sequence[int]]]
"""Of a probe: a distribution for each place, the prompt's token ids, the greedy answer's."""


def probe(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Mapping[str, Any]]], new: int, places: int
) -> list[Probe]:
    """Ask the student: answers of at most `new` tokens, distributions at `places` of a prompt and all of the answer."""
    encoded = [tokenizer.apply_chat_template(list(p), add_generation_prompt=True, return_dict=False) for p in prompts]
    shared = _shared(encoded)
    found = []
    for messages, ids in zip(prompts, encoded, strict=True):
        answer = greedy(model, tokenizer, ids, new)
        first = min(shared + 1, len(ids))
        step = max((len(ids) - first) // places, 1)
        chosen = sorted({*range(len(ids), first - 1, -step)[:places], *range(len(ids), len(ids) + len(answer) + 1)})
        blank = Probe(messages, ids, answer, chosen, None)
        found.append(Probe(messages, ids, answer, chosen, log_probabilities(model, blank)))
    return found


def _shared(encoded: Sequence[Sequence[int]]) -> int:
    """Tokens at the beginning that all prompts share: template and system prompt, which tell nothing apart."""
    first = encoded[0]
    same = (len(set(column)) == 1 for column in zip(*encoded, strict=False))
    return next((i for i, one in enumerate(same) if not one), 0) if len(encoded) > 1 else len(first) // 2


def greedy(model: Any, tokenizer: Any, ids: Sequence[int], new: int) -> list[int]:
    """The greedy answer's token ids, up to the first special token, at which llama.cpp stops too."""
    import torch

    given = torch.tensor([list(ids)], device=model.device)
    with torch.inference_mode():
        written = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(ids) :].tolist()
    special = set(tokenizer.all_special_ids)
    return list(written)[: next((i for i, token in enumerate(written) if token in special), len(written))]


def log_probabilities(model: Any, asked: Probe) -> Any:
    """A transformers model's log-probabilities (places, vocabulary) in fp32."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([asked.tokens], device=model.device)).logits[0].float()
    rows = torch.tensor([place - 1 for place in asked.places])
    return logits[rows].log_softmax(-1).cpu()


def in_transformers(model: Any, tokenizer: Any, new: int) -> Told:
    """How a transformers model answers a probe."""
    return (lambda p: log_probabilities(model, p), lambda p: p.ids, lambda p: greedy(model, tokenizer, p.ids, new))


def in_llama(llama: Llama, tokenizer: Any, new: int) -> Told:
    """How a GGUF file answers a probe in llama.cpp."""
    special = set(tokenizer.all_special_ids)

    def answer(asked: Probe) -> Sequence[int]:
        ids = llama.answer(asked.messages, new).ids
        return ids[: next((i for i, token in enumerate(ids) if token in special), len(ids))]

    def distributions(asked: Probe) -> Any:
        return [llama.log_probabilities(asked.tokens[:place], LIKELIEST) for place in asked.places]

    return distributions, lambda p: llama.prompt_ids(p.messages), answer


def compare(step: str, probes: Sequence[Probe], told: Told, tie: float) -> Agreement:
    """Ask a step what the student was asked.

    Args:
        step: Its name.
        probes: What the student said.
        told: How the step answers.
        tie: Tokens count as equally likely where the student's log-probabilities differ by so many nats at most: either
            may be a step's likeliest, and answers may part there.
    """
    distributions, prompt_ids, answer = told
    divergences, hits, same, notes, prompts_same = [], [], [], [], True
    for asked in probes:
        found = list(prompt_ids(asked))
        if found != list(asked.ids):
            prompts_same = False
            notes.append(_parted(found, asked.ids))
        for expected, got in zip(asked.expected, distributions(asked), strict=True):
            divergence, hit = _against(expected, got, tie)
            divergences.append(divergence)
            hits.append(hit)
        parted = differs(asked, answer(asked), tie)
        same.append(not parted)
        notes += [parted] if parted else []
    return Agreement(
        step,
        kl=sum(divergences) / len(divergences),
        top1=sum(hits) / len(hits),
        answers=sum(same) / len(same),
        places=len(hits),
        same_prompts=prompts_same,
        note=notes[0] if notes else "",
    )


def _against(expected: Any, got: Any, tie: float) -> tuple[float, bool]:
    """Divergence of a distribution from the student's, and whether the likeliest token is one of the student's."""
    import torch

    if not isinstance(got, Mapping):
        divergence = (expected.exp() * (expected - got)).sum()
        return max(float(divergence), 0.0), bool(expected.max() - expected[got.argmax()] <= tie)
    ids = torch.tensor(list(got))
    theirs, ours = torch.tensor(list(got.values())), expected[ids]
    rest = [(1 - values.exp().sum()).clamp_min(1e-9) for values in (ours, theirs)]
    divergence = (ours.exp() * (ours - theirs)).sum() + rest[0] * (rest[0] / rest[1]).log()
    likeliest = max(got, key=lambda token: got[token])
    return max(float(divergence), 0.0), bool(expected.max() - expected[likeliest] <= tie)


def _parted(found: Sequence[int], expected: Sequence[int]) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(map(len, (found, expected)))
    )
    return (
        f"the prompt's token ids differ at {at}: {list(found[at : at + 3])} in the file, "
        f"{list(expected[at : at + 3])} in training ({len(found)} and {len(expected)} tokens)"
    )


def differs(asked: Probe, answer: Sequence[int], tie: float) -> str:
    """Where an answer parts from the student's, in words; nothing where it does not, or only at a tie."""
    at = next((i for i, (a, b) in enumerate(zip(answer, asked.answer, strict=False)) if a != b), None)
    if at is None and len(answer) == len(asked.answer):
        return ""
    if at is None:
        at = min(len(answer), len(asked.answer))
    place = asked.places.index(len(asked.ids) + at) if len(asked.ids) + at in asked.places else None
    if place is not None and at < len(answer):
        expected = asked.expected[place]
        if float(expected.max() - expected[answer[at]]) <= tie:
            return ""
    return f"the answer to {str(asked.messages[-1]['content'])[:60]!r} parts from the student's at token {at}"
