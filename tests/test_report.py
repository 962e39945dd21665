"""The report and the model card: the facts are there, nothing from data gets out, and the curve is true."""

import ast
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from foundry import card, charts, report
from foundry.deliverables import Agreement, Package, Trial, figures
from foundry.records import (
    BaseModel,
    Checkpoint,
    Dataset,
    Decontamination,
    Finding,
    Group,
    Measurement,
    Nearness,
    Pruned,
    Quarantined,
    Removed,
    Sample,
    Verdict,
)

LOT = "7f3a9c" + "0" * 58
EVIL = "<script>alert(1)</script> \"'| `x` ---\n---\n# [a](b) {{ 7*7 }}"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Elements in order with their attributes and text; fails on a tag that is not closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attrs):
        found = [e for e in self.elements if e["tag"] == tag]
        return [e for e in found if all(e["attrs"].get(k.rstrip("_")) == v for k, v in attrs.items())]

    def text(self, tag, **attrs):
        return " ".join(" ".join(e["text"].split()) for e in self.all(tag, **attrs))


def row(question, answer="Yes"):
    return {"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": answer}]}


@pytest.fixture
def job(tmp_path):
    """The arguments of report.write for a small run that has passed."""
    model = tmp_path / "model"
    model.mkdir()
    base = BaseModel("org/small", model, {}, "b" * 64, 134_515_008)
    metrics = {"train_loss": 0.5512, "peak_memory_bytes": 1.63e9, "train_seconds": 142.2, "steps": 100.0}
    samples = [
        Sample("changed for the better", "Yes", "No", "Yes.", False, True),
        Sample("changed for the worse", "No", "No", "Yes", True, False),
        Sample("wrong all along", "Yes", "No", "no idea", False, False),
        Sample("right all along", "No", "The answer is no", "No", True, True),
    ]
    details = {"majority_rate": 0.5133, "recall_yes": 0.9, "baseline_recall_yes": 0.0, "unreadable": 3}
    measurement = Measurement("logic_score", 0.8061, 0.5, 300, details, {"min_gain": 0.2}, True, samples)
    dataset = Dataset("syllogism", "instruction", [row("q")] * 9, [row("e")] * 4, "d" * 64, "e" * 64)
    return {
        "run_dir": tmp_path,
        "settings": {"job_id": "upgrade", "method": {"_target_": "foundry.method.sft.SFT", "learning_rate": 1e-3}},
        "dataset": dataset,
        "pruned": Pruned([row("q")] * 8, [Removed(7, 2, 0.97, row("kept twice"))], "c" * 64, "d" * 64),
        "checkpoint": Checkpoint(model, "adapter", base, metrics, "c" * 64, LOT),
        "verdict": Verdict(True, [measurement], "e" * 64, LOT),
    }


def log(run_dir, *entries):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines))


def losses(*pairs):
    return [{"step": step, "time": 0.0, "metrics": {"loss": loss, "learning_rate": 0.1}} for step, loss in pairs]


def page(job, **changes):
    return Page(report.write(**{**job, **changes}).read_text(encoding="utf-8"))


def with_samples(job, *samples):
    measurement = replace(job["verdict"].measurements[0], samples=samples)
    return replace(job["verdict"], measurements=[measurement])


def test_the_page_tells_the_facts(job):
    log(job["run_dir"], *losses((10, 1.9), (20, 0.3)))
    found = page(job, release_uri="registry/upgrade/1")
    banner = found.text("section", class_="verdict good")
    assert "✓ Passed logic_score 50.0 % → 80.6 %, +30.6 points; required +20.0 lot 7f3a9c000000" in banner
    assert "published at registry/upgrade/1" in banner
    assert found.all("abbr", title=LOT)
    cells = [" ".join(e["text"].split()) for e in found.all("tr")]
    for fact in (
        "Recall yes0.0 %90.0 %",
        "Unreadable3",
        "7kept twice → Yes20.9700",
        "Train time2 min 22 s",
        "Peak memory1.5 GiB",
    ):
        assert fact in cells
    assert [e["text"] for e in found.all("code")][-6:-1] == ["d" * 64, "c" * 64, "b" * 64, LOT, "e" * 64]
    assert "learning_rate: 0.001" in found.text("pre")
    assert "majority rate 51.3 %" in found.text("li", class_="majority")


def test_the_page_is_one_well_formed_file_without_outside_resources(job):
    log(job["run_dir"], *losses((10, 1.9), (20, 0.3)))
    found = page(job, release_uri="https://example.org/model")
    assert not {e["tag"] for e in found.elements} & {"script", "link", "img", "iframe", "object", "a"}
    assert not [e for e in found.elements if {"src", "href", "xlink:href", "style"} & e["attrs"].keys()]
    assert not re.search(r"url\(|@import", found.text("style"))
    ids = [e["attrs"]["id"] for e in found.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    labels = " ".join(e["attrs"].get("aria-labelledby", "") for e in found.elements).split()
    assert set(labels) == set(ids)
    assert [e["tag"] for e in found.elements if re.fullmatch(r"h[1-3]", e["tag"])][:4] == ["h1", "h2", "h2", "h2"]
    assert all(e["attrs"].get("scope") in {"row", "col"} for e in found.all("th"))


def test_what_comes_from_data_is_escaped(job):
    dataset = replace(
        job["dataset"], name=EVIL, notes=[EVIL], quarantined=[Quarantined(f"/home/me/{EVIL[:8]}.jsonl", 3, EVIL)]
    )
    pruned = replace(job["pruned"], removed=[Removed(0, 1, 1.0, {"text": EVIL})])
    verdict = with_samples(job, Sample(EVIL, EVIL, EVIL, EVIL, False, True))
    settings = {**job["settings"], "data": {"note": EVIL}}
    found = page(job, dataset=dataset, pruned=pruned, verdict=verdict, settings=settings, release_uri=EVIL)
    assert not found.all("script")
    text = found.text("body")
    assert text.count("<script>alert(1)</script>") >= 9
    assert "{{ 7*7 }}" in text
    assert "/home/me" not in text


def near(threshold=0.95):
    histogram = [(0.0, 0.5, 6), (0.5, 0.75, 0), (0.75, 1.0, 3)]
    return Nearness(threshold, histogram, [(0.9, 3), (0.99, 1)], [Group(2, 3, 0.9612)])


def test_the_page_tells_how_near_rows_are(job):
    data = replace(job["dataset"], train=[row(f"question {i}") for i in range(9)])
    removed = [Removed(7, 2, 0.99, row("nearly alike")), Removed(8, 2, 0.9612, row("not as much <b>"))]
    found = page(job, dataset=data, pruned=replace(job["pruned"], removed=removed, nearness=near(0.75)))
    cells = [" ".join(e["text"].split()) for e in found.all("tr")]
    for fact in ("0.90333.3 %", "0.99111.1 %", "32question 2 → Yesnot as much <b> → Yes0.9612"):
        assert fact in cells
    low, none, high = found.all("rect", class_="column") + found.all("rect", class_="column gone")
    assert high["text"] == "0.75 to 1: 3 rows"
    assert float(low["attrs"]["height"]) == pytest.approx(2 * float(high["attrs"]["height"]), abs=0.2)
    assert float(none["attrs"]["height"]) == 0
    [mark] = found.all("line", class_="mark")
    assert float(mark["attrs"]["x1"]) == pytest.approx(float(high["attrs"]["x"]) - 1, abs=0.1)


def test_the_page_tells_overlaps_with_both_rows_and_what_was_done(job):
    findings = [Finding(i, "syllogism", 70 + i, f"shared words {i} <i>", i, 0.01 * i) for i in range(30)]
    sizes = {"syllogism": 300, "bench.txt": 12}
    verdict = replace(job["verdict"], decontamination=Decontamination("drop", 13, sizes, 900, findings))
    found = page(job, verdict=verdict)
    assert (
        "30 of 900 training rows overlap 300 rows of syllogism and 12 rows of bench.txt, compared by 13-grams of "
        "words. They were left out of training." in found.text("p")
    )
    cells = [" ".join(e["text"].split()) for e in found.all("tr")]
    assert "2999 of syllogismshared words 29 <i>2929 %" in cells
    assert sum("shared words" in cell for cell in cells) == report.FOUND
    reported = replace(verdict, decontamination=replace(verdict.decontamination, action="report"))
    assert "trained on" in page(job, verdict=reported).text("p")
    clean = replace(verdict, decontamination=replace(verdict.decontamination, findings=[]))
    assert "0 of 900 training rows overlap" in page(job, verdict=clean).text("p")


def test_answers_are_a_mix_marked_by_a_sign(job):
    found = page(job)
    assert [e["text"] for e in found.elements if e["attrs"].get("class", "").startswith("kind")] == [
        "Newly right",
        "Still wrong",
        "Newly wrong",
        "Still right",
    ]
    marks = [" ".join(e["text"].split()) for e in found.all("dd") if "wrong:" in e["text"] or "right:" in e["text"]]
    assert marks[:2] == ["✗wrong: No", "✓right: Yes."]
    assert marks[4:6] == ["✓right: No", "✗wrong: Yes"]
    assert marks[6] == "✓right: The answer is no"


def test_answers_that_did_not_change_only_fill_up():
    calm = [Sample("calm", "No", "No", "No", True, True)] * 9
    better, worse = Sample("b", "Yes", "No", "Yes", False, True), Sample("w", "No", "No", "Yes", True, False)
    kinds = [kind for kind, *_ in report.mix([*calm, *[better] * 9, *[worse] * 2])]
    assert kinds == ["newly right"] * 3 + ["newly wrong"] * 2
    assert [kind for kind, *_ in report.mix([*calm, better])] == ["newly right"] + ["still right"] * 4


def test_points_of_the_curve_lie_where_their_axes_say():
    curve = charts.draw_curve([(10, 1.9), (20, 0.85), (40, 0.3)])
    (x0, label0), (x1, label1) = curve.x_ticks[0], curve.x_ticks[-1]
    (y0, low), (y1, high) = curve.y_ticks[0], curve.y_ticks[-1]
    assert (label0, label1, low, high) == ("0", "40", "0.0", "2.0")
    for (step, loss), point in zip([(10, 1.9), (20, 0.85), (40, 0.3)], curve.line.split(), strict=True):
        x, y = map(float, point.split(","))
        assert (x - x0) / (x1 - x0) == pytest.approx(step / 40, abs=2e-3)
        assert (y0 - y) / (y0 - y1) == pytest.approx(loss / 2, abs=2e-3)
    assert (x0, x1, y1, y0) == pytest.approx((charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM))
    assert curve.summary == "From 1.9 at step 10 to 0.3 at step 40; lowest 0.3 at step 40."


def test_many_points_are_thinned_without_losing_a_spike():
    points = [(step, 1.0 + step % 7 / 10) for step in range(1, 10_001)]
    points[6_000] = (6_001, 50.0)
    curve = charts.draw_curve(points)
    assert len(curve.line.split()) <= 801
    assert not curve.dots
    assert min(float(point.split(",")[1]) for point in curve.line.split()) == pytest.approx(charts.TOP, abs=0.1)


def test_the_average_is_over_the_points_around_each():
    points = list(enumerate([4.0, 1.0, 1.0, 1.0, 9.0]))
    assert [value for _, value in charts.average(points, 3)] == [2.5, 2.0, 1.0, pytest.approx(11 / 3), 5.0]
    assert charts.average(points, 1) == points


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 1.9), (-0.3, 0.4), (2.301, 2.302), (0, 12_345), (1e-9, 3e-9)])
def test_ticks_enclose_what_they_measure(low, high):
    values = [value for value, _ in charts.ticks(low, high)]
    steps = {round((b - a) / (values[1] - values[0]), 6) for a, b in pairwise(values)}
    assert values[0] <= low < high <= values[-1] * (1 + 1e-12)
    assert steps == {1}
    assert 3 <= len(values) <= 8
    assert len({label for _, label in charts.ticks(low, high)}) == len(values)


def test_losses_are_read_from_a_journal_with_gaps(tmp_path):
    broken = [*losses((30, None), (40, "high")), '{"step": 50, "metrics": {"loss": NaN}}', "[]", '{"step": 60, "met']
    log(tmp_path, *losses((20, 0.9), (10, 2.0)), {"step": 20, "metrics": {"score": 1}}, *losses((20, 0.8)), *broken)
    assert charts.read_losses(tmp_path / "metrics.jsonl") == [(10, 2.0), (20, 0.8)]
    assert charts.read_losses(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("pairs", [[(10, 0.5)], [(0, 0.0)], [(1, 2.0), (2, 2.0)], [(10, -0.5), (20, -3.0)]])
def test_few_or_flat_losses_still_make_a_picture(job, pairs):
    log(job["run_dir"], *losses(*pairs))
    found = page(job)
    dots = found.all("circle")
    assert len(dots) == len(pairs)
    for dot in dots:
        assert charts.LEFT <= float(dot["attrs"]["cx"]) <= charts.RIGHT
        assert charts.TOP <= float(dot["attrs"]["cy"]) <= charts.BOTTOM


def test_a_bare_run_makes_a_whole_page(job):
    verdict = Verdict(True, [], "e" * 64, LOT, examined=False)
    pruned = replace(job["pruned"], removed=[])
    found = page(job, verdict=verdict, pruned=pruned, checkpoint=replace(job["checkpoint"], lot="", metrics={}))
    assert "Not examined" in found.text("section", class_="verdict idle")
    assert "No loss was logged." in found.text("p")
    assert not found.all("svg")
    assert not found.all("caption")


def test_a_failed_gate_is_said_in_words(job):
    failed = replace(
        job["verdict"].measurements[0], measured=0.48, passed=False, required={"min_gain": 0.2, "min": 0.75}
    )
    loss = Measurement("perplexity", 12.31, 15.8, 20, {}, {"max": 13.0}, True)
    found = page(job, verdict=Verdict(False, [failed, loss], "e" * 64, LOT))
    banner = found.text("section", class_="verdict bad")
    assert "✗ Failed" in banner
    assert "✗ logic_score 50.0 % → 48.0 %, −2.0 points; required +20.0 and at least 75.0 %" in banner  # noqa: RUF001
    assert "✓ perplexity 15.8 → 12.31, −3.49; required at most 13" in banner  # noqa: RUF001
    assert "nothing was published" in banner


def test_the_page_tells_what_the_gate_looked_at(job):
    first = replace(
        job["verdict"].measurements[0],
        interval=(0.26, 0.35),
        parents={"logic": 0.84},
        required={"min_gain": 0.2, "min_retention": 0.8},
        note="too few <b>",
    )
    over = Measurement("over_refusal", 0.03, 0.05, 20, {}, {"min_gain": -0.02}, False, lower_is_better=True)
    found = page(job, verdict=Verdict(False, [first, over], "e" * 64, LOT))
    cells = [" ".join(e["text"].split()) for e in found.all("tr")]
    for fact in (
        "Gain+30.6 points",
        "95 % interval+26.0 to +35.0",
        "Required+20.0 and 80 % of the best parent's gain",
        "Parent logic84.0 %",
        "Kept of the best parent's gain90 %",
        "Change−2.0 points",  # noqa: RUF001
        "Requiredchange at most +2.0",
    ):
        assert fact in cells
    assert {"Passed✓ yes", "Passed✗ no"} <= {cell.replace("Passed ", "Passed") for cell in cells}
    assert "Too few <b>." in found.text("p")
    assert "(95 %: +26.0 to +35.0)" in found.text("p", class_="headline")


def test_answers_that_are_not_judged_are_told_as_better_or_worse(job):
    samples = [
        Sample("q", "a", "loss 2 over 3 tokens", "loss 1 over 3 tokens", False, True),
        Sample("p", "a", "loss 1 over 3 tokens", "loss 2 over 3 tokens", True, False),
    ]
    loss = Measurement("eval_loss", 1.5, 1.6, 2, samples=samples, lower_is_better=True, judged=False)
    found = page(job, verdict=Verdict(True, [loss], "e" * 64, LOT))
    kinds = [e["text"] for e in found.elements if e["attrs"].get("class", "").startswith("kind")]
    assert kinds == ["Better", "Worse"]
    assert not [e for e in found.all("span") if e["text"] in {"right:", "wrong:"}]


def test_bars_and_marks_share_a_scale(job):
    bars = charts.draw_bars(job["verdict"].measurements[0])
    assert (bars.baseline, bars.student) == (pytest.approx(180), pytest.approx(0.8061 * 360))
    assert [(style, round(x, 1)) for style, x, _ in bars.marks] == [("gate", 252.0), ("majority", 184.8)]
    other = charts.draw_bars(Measurement("perplexity", float("nan"), 15.0, 20))
    assert (other.student, other.baseline, other.ticks[-1][1]) == (0.0, 360.0, "15")


def read_card(path):
    text = path.read_text(encoding="utf-8")
    start, front, body = re.split(r"^---$\n", text, maxsplit=2, flags=re.MULTILINE)
    assert start == ""
    code = re.search(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
    ast.parse(code[1])
    return yaml.safe_load(front), body, code[1]


def make_card(job, **changes):
    given = {name: value for name, value in {**job, **changes}.items() if name != "run_dir"}
    return read_card(card.write(**given))


def packaged(job, unmet=""):
    """A package of two steps in the job's run directory."""
    folder = job["run_dir"] / "package"
    folder.mkdir()
    (folder / "model-Q8_0.gguf").write_bytes(bytes(2048))
    (folder / "eval_log.md").write_text("a log")
    tests = [
        Trial("guardrail", EVIL, "matches sorry|no", passed=False, metric="guardrail", value=0.0),
        Trial("writing", "45.1 tokens/s", "", passed=True, metric="tokens_per_s", value=45.1),
        Trial("time to first token", "nothing was written", "", passed=True, metric="first_token_s", value=None),
    ]
    scores = {"logic_score": 0.7906}
    steps = [
        Agreement("student", metrics={"logic_score": 0.8061}),
        Agreement("merged", after="student", kl=1.3e-6, places=217, metrics=scores, seconds=2.0),
        Agreement("Q8_0", "merged", 0.0039, 0.991, places=217, note=EVIL, size=2048, metrics=scores, tests=tests),
    ]
    files = {"package/eval_log.md": "1" * 64, "package/model-Q8_0.gguf": "2" * 64}
    return Package(folder, files, unmet, steps, full=4096, notes=["Modelfile: its template is told"])


def test_the_page_tells_what_became_of_the_package(job):
    found = page(job, package=packaged(job))
    cells = [" ".join(e["text"].split()) for e in found.all("tr")]
    for fact in (
        "untouched base––––––50.0 %",
        "student––––––80.6 %",
        "merged––2.0 s1.3e-06100.0 % of 217100.0 %79.1 %",
        "Q8_02 KiB50.0 %–0.003999.1 % of 217100.0 %79.1 %",
        "Q8_0writing45.1 tokens/s–✓ yes",
        "package/model-Q8_0.gguf2 KiB222222222222",
    ):
        assert fact in cells
    assert not found.all("script")
    assert "✓ Passed" in found.text("section", class_="verdict good")
    assert found.all("h2", id="package")
    assert not page(job).all("h2", id="package")


def test_a_package_that_is_not_met_stands_at_the_head_of_the_page(job):
    banner = page(job, package=packaged(job, "package: Q8_0: <b> differs")).text("section", class_="verdict bad")
    assert "Passed, but its package failed" in banner
    assert "Package: Q8_0: <b> differs." in banner
    assert "nothing was published" in banner


def test_the_card_tells_of_the_files(job):
    _, body, _ = make_card(job, package=packaged(job))
    rows = body.splitlines()
    assert "| Q8\\_0 | 2 KiB | 50.0 % | – | 0.0039 | 99.1 % of 217 | 100.0 % | 79.1 % |" in rows
    assert "| Q8\\_0 | writing | 45.1 tokens/s | – | yes |" in rows
    assert f"| model-Q8\\_0.gguf | 2 KiB | `{'2' * 64}` |" in rows
    assert "<script>" not in body
    widths = {
        line.replace("\\|", "").count("|")
        for line in rows
        if line.startswith(("| student ", "| Q8\\_0 | 2", "| step "))
    }
    assert len(widths) == 1, "a table has as many cells in every row"
    assert "llama.cpp" not in make_card(job)[1]


def test_what_was_measured_of_a_package_has_names_for_mlflow(job):
    found = figures(packaged(job))
    assert found["package/Q8_0/kl"] == 0.0039
    assert found["package/Q8_0/top1"] == 0.991
    assert found["package/Q8_0/size_mb"] == pytest.approx(0.002048)
    assert found["package/Q8_0/smaller"] == 0.5
    assert found["package/Q8_0/logic_score"] == 0.7906
    assert found["package/Q8_0/tokens_per_s"] == 45.1
    assert found["package/Q8_0/guardrail"] == 0.0
    assert "package/Q8_0/first_token_s" not in found
    assert not [name for name in found if name.startswith(("package/student", "package/merged/size"))]


def test_the_card_says_what_the_model_is(job):
    front, body, code = make_card(job)
    assert front == {
        "base_model": "org/small",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["foundry", "sft"],
    }
    assert "| logic\\_score | 50.0 % | 80.6 % | +30.6 | – | +20.0 | yes | 300 |" in body
    assert "| method.learning\\_rate | 0.001 |" in body
    assert f"| syllogism | 9 | `{'d' * 64}` |" in body
    assert LOT in body
    assert "foundry verify" in body
    assert "'org/small'" in code
    assert "PeftModel.from_pretrained(base, folder)" in code


def test_the_card_of_full_weights_needs_neither_peft_nor_a_verdict(job):
    front, body, code = make_card(job, checkpoint=replace(job["checkpoint"], kind="full"), verdict=None)
    assert (front["library_name"], front["base_model_relation"]) == ("transformers", "finetune")
    assert "not examined" in body
    assert "peft" not in code


@pytest.mark.parametrize(
    ("quantized", "says"), [("nf4", "held in 4 bits (NF4) while this was trained"), ("stored", "few bits already")]
)
def test_a_base_that_was_held_in_few_bits_is_told_with_what_it_was_examined_on(job, quantized, says):
    front, body, _ = make_card(job)
    assert "qlora" not in front["tags"]
    assert "bits" not in body
    checkpoint = replace(job["checkpoint"], quantized=quantized)
    front, body, code = make_card(job, checkpoint=checkpoint)
    assert ('bnb_4bit_quant_type="nf4"' in code) == (quantized == "nf4"), "a base that is stored so needs no word of it"
    assert ("BitsAndBytesConfig" in code) == (quantized == "nf4")
    assert "qlora" in front["tags"]
    (line,) = [line for line in body.splitlines() if line.startswith("| The base's weights |")]
    assert says in line
    assert "examinations" in line
    found = [element["text"] for element in page(job, checkpoint=checkpoint).all("td")]
    assert [text for text in found if says in text]
    assert not [element for element in page(job).all("th") if element["text"] == "The base's weights"]


def test_a_base_that_only_foundry_can_find_is_made_by_foundry(job):
    name = "package://llm_small/small.gguf"
    model = {"_target_": "foundry.model.pretrained.Pretrained", "name": name, "revision": None}
    checkpoint = replace(job["checkpoint"], base=replace(job["checkpoint"].base, name=name))
    settings = {**job["settings"], "model": model, "data": {"system_prompt": 'Say "Yes".'}}
    front, _, code = make_card(job, checkpoint=checkpoint, settings=settings)
    assert front["base_model"] == name
    assert "from foundry.model.pretrained import Pretrained" in code
    assert f"Pretrained(name='{name}').fetch().path" in code
    assert """{'role': 'system', 'content': 'Say "Yes".'}""" in code


def test_a_hub_base_is_loaded_at_its_revision():
    model = {"_target_": "foundry.model.pretrained.Pretrained", "name": "org/small", "revision": "abc"}
    assert card.base_in_python({"model": model}, "org/small") == ("", "'org/small', revision='abc'")


def test_untrusted_strings_break_neither_front_matter_nor_markdown(job):
    checkpoint = replace(job["checkpoint"], base=replace(job["checkpoint"].base, name=EVIL))
    measurement = replace(job["verdict"].measurements[0], name=EVIL)
    settings = {"job_id": EVIL, "data": {"system_prompt": f"{EVIL}\n```"}, "method": {"_target_": "a.B", EVIL: EVIL}}
    front, body, _ = make_card(
        job,
        checkpoint=checkpoint,
        dataset=replace(job["dataset"], name=EVIL),
        verdict=replace(job["verdict"], measurements=[measurement]),
        settings=settings,
    )
    assert front["base_model"] == " ".join(EVIL.split())
    prose = re.sub(r"```python\n.*?\n```\n", "", body, flags=re.DOTALL)
    assert "<script>" not in prose
    assert not re.search(r"(?<!\\)[\[\]]", prose)
    assert len(re.findall(r"^#", prose, re.MULTILINE)) == 6
    for line in prose.splitlines():
        if line.startswith("|") and "logic" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in {3, 4, 9}


def test_the_templates_ship_with_the_package():
    home = Path(report.__file__).parent
    assert (home / "report.html.j2").is_file()
    assert (home / "card.md.j2").is_file()
