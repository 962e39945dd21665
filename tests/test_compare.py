"""Runs side by side: what is best, what noise allows, which settings differ; the table, the page and the queries."""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry import compare as command
from foundry import store
from foundry.__main__ import main
from foundry.comparison import apart, compare, differences, method
from foundry.overview import heat, losses, page, pareto
from foundry.runs import Runs, TrackedRun

SFT = {"method._target_": "foundry.method.sft.SFT", "method.adapter.dora": "false", "method.adapter.quantize": "null"}


def run(name="r", status="FINISHED", params=(), tags=(), **metrics):
    return TrackedRun(name * 8, name, status, 0, 1.0, dict(params), metrics, {"verdict": "passed", **dict(tags)})


def score(value, half):
    return {
        "logic_score": value, "logic_score_baseline": 0.5,
        "logic_score_gain_low": value - 0.5 - half, "logic_score_gain_high": value - 0.5 + half,
    }  # fmt: skip


def marks(table, key):
    return [(cell.best, cell.near) for cell in table.column(key).cells]


def test_the_best_is_marked_and_what_noise_allows_to_equal_it():
    table = compare("t", [run("a", **score(0.8, 0.04)), run("b", **score(0.75, 0.04)), run("c", **score(0.6, 0.04))])
    assert marks(table, "logic_score") == [(True, False), (False, True), (False, False)]
    assert table.column("logic_score").cells[0].text == "80.0 % ±4.0 (from 50.0)"


def test_less_is_better_of_losses_time_and_bytes():
    first = run("a", eval_loss=0.5, train_seconds=10.0, peak_memory_bytes=5.0, tokens_per_second=1.0)
    second = run("b", eval_loss=0.7, train_seconds=5.0, peak_memory_bytes=9.0, tokens_per_second=2.0)
    best = {c.key: [cell.best for cell in c.cells] for c in compare("t", [first, second]).columns}
    assert best["eval_loss"] == best["peak_memory_bytes"] == [True, False]
    assert best["train_seconds"] == best["tokens_per_second"] == [False, True]


def test_equal_figures_have_no_best_and_missing_or_infinite_ones_are_left_empty():
    table = compare("t", [run("a", train_seconds=1.0, eval_loss=math.nan), run("b", train_seconds=1.0, eval_loss=1.0)])
    assert marks(table, "train_seconds") == [(False, False)] * 2
    assert [cell.text for cell in table.column("eval_loss").cells] == ["", "1"]
    assert table.column("peak_memory_bytes") is None


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_runs_are_apart_when_their_difference_exceeds_the_noise_of_both(first, second, one, other):
    found = apart(run("a", **score(first, one)), run("b", **score(second, other)), "logic_score")
    limit = math.sqrt(one * one + other * other)
    if abs(abs(first - second) - limit) > 1e-9:
        assert found == (abs(first - second) > limit)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "full"),
        ({"method.adapter.rank": "8"}, "lora"),
        ({"method.adapter.rank": "8", "method.adapter.dora": "true"}, "dora"),
        ({"method.adapter.rank": "8", "method.adapter.quantize": "nf4"}, "qlora"),
        ({"method.adapter.rank": "8", "method.adapter.rslora": "true"}, "rslora"),
        ({"method.adapter.rank": "8", "method._target_": "foundry.method.orpo.ORPO"}, "orpo"),
        ({"method._target_": "foundry.method.dpo.DPO"}, "dpo full"),
    ],
)
def test_methods_are_called_as_people_call_them(settings, name):
    assert method(SFT | settings) == name


def test_only_what_differs_and_is_no_column_of_its_own_is_told():
    shared = {"data.limit": "9", "job_id": "a", "method.adapter.rank": "4"}
    first = run("a", params={**shared, "compute.seed": "0", "prune._target_": "foundry.prune.none.NoPruner"})
    second = run("b", params={
        **shared, "compute.seed": "1", "job_id": "b", "method.adapter.rank": "8",
        "prune._target_": "foundry.prune.exact.Exact", "prune.threshold": "0.9",
    })  # fmt: skip
    assert differences([first, second]) == ["seed=0 prune=NoPruner", "seed=1 prune=Exact"]
    assert differences([first, first]) == ["", ""]


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    front = pareto(points)
    for at, point in enumerate(points):
        beaten = any(all(o >= p for o, p in zip(other, point, strict=True)) and other != point for other in points)
        assert (at in front) != beaten


def test_forms_hold_the_same_figures():
    table = compare("t", [run("a|b", **score(0.8, 0.04)), run("c", "FAILED", tags={"lot": "f" * 64})])
    records = json.loads(command.printed(table, "json"))
    assert records[0]["logic_score"] == 0.8
    assert records[0]["logic_score_gain_low"] == pytest.approx(0.26)
    assert (records[1]["verdict"], records[1]["logic_score"], records[1]["lot"]) == ("failed", None, "f" * 64)
    rows = list(csv.DictReader(io.StringIO(command.printed(table, "csv"))))
    assert [row["logic_score"] for row in rows] == ["0.8", ""]
    lines = command.printed(table, "md").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 4


def test_a_narrow_terminal_does_without_what_the_name_says():
    table = compare("t", [run("a", **score(0.8, 0.1), tokens_per_second=1.0), run("b", **score(0.6, 0.1))])
    own, _ = command.split(table)
    left, hidden = command.fitting(own, 40)
    assert [column.key for column in left] == ["run", "logic_score"]
    assert [column.key for column in hidden] == ["tokens_per_second"]
    assert command.fitting(own, None) == (own, [])


def test_the_heat_map_is_the_mean_by_method_and_rank():
    def one(rank, value, dora="false"):
        return run(f"{rank}{value}", params=SFT | {"method.adapter.rank": str(rank), "method.adapter.dora": dora},
                   **score(value, 0.1))  # fmt: skip

    table = compare("t", [one(4, 0.6), one(4, 0.8), one(16, 0.9), one(4, 0.5, "true")])
    drawn = heat(table, table.column("logic_score"))
    assert (drawn.methods, drawn.ranks) == (["dora", "lora"], ["4", "16"])
    (dora, none), (lora, high) = drawn.fields
    assert none is None
    assert [dora[0], lora[0], high[0]] == ["50.0 %", "70.0 %", "90.0 %"]
    assert [dora[1], lora[1], high[1]] == pytest.approx([0, 0.5, 1])


def test_a_run_that_logged_no_loss_is_no_line():
    assert losses("t", "step", [[], []]) is None
    chart = losses("t", "step", [[(1, 2.0), (2, 1.0)], []])
    assert [bool(points) for points, *_ in chart.lines] == [True, False]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with a sweep of three runs and one run beside it; the folder it lies in."""
    folder = tmp_path_factory.mktemp("filled")
    with store.opened(f"sqlite:///{folder}/mlflow.db") as (client, experiment):
        parent = client.create_run(experiment, tags={"foundry.sweep": "x"}, run_name="sweep").info.run_id
        for at, name in enumerate(["<b>first</b>", "second", "third", "alone"]):
            tags = {"mlflow.parentRunId": parent} if at < 3 else {"foundry.run_dir": str(folder / "alone")}
            made = client.create_run(experiment, run_name=name, tags=tags | {"lot": f"{at}" * 64}).info.run_id
            client.log_param(made, "compute.seed", at)
            for step in range(3):
                client.log_metric(made, "loss", 3.0 - at - step / 4, step=step)
                client.log_metric(made, "num_input_tokens_seen", 100 * step, step=step)
            client.log_metric(made, "logic_score", 0.5 + at / 10)
            client.log_metric(made, "logic_score_baseline", 0.5)
            if at == 1:
                sample = {"question": "2+2?", "expected": "4", "before": "5", "after": "4"}
                sample |= {"before_right": False, "after_right": True}
                client.log_dict(made, {"measurements": [{"samples": [sample]}]}, "verdict.json")
            client.set_terminated(made)
        client.set_terminated(parent)
        (folder / "alone").mkdir()
        (folder / "sweep").mkdir()
        (folder / "sweep" / "sweep.json").write_text(json.dumps({"run_id": parent, "overrides": []}))
    return folder, Runs(client, experiment), parent


@pytest.fixture
def call(filled, monkeypatch, capsys):
    """Calls `foundry compare` on that store; its exit code, what it printed and what it complained of."""
    folder, _, _ = filled
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.chdir(folder)

    def compare_command(*words):
        return main(["compare", *words]), *capsys.readouterr()

    return compare_command


def test_everything_is_shown_without_arguments_and_no_parent(call):
    code, out, _ = call()
    assert code == 0
    assert [name in out for name in ("first", "second", "third", "alone", "sweep")] == [True] * 4 + [False]


def test_a_sweep_that_was_gone_on_with_shows_each_job_once_in_order(tmp_path):
    with store.opened(f"sqlite:///{tmp_path}/mlflow.db") as (client, experiment):
        parent = client.create_run(experiment, tags={"foundry.sweep": "x"}, run_name="sweep").info.run_id

        def job(name, number, loss, start, **tags):
            tags = {"foundry.manifest": number, **tags}
            made = client.create_run(experiment, start_time=start, run_name=name, tags=tags).info.run_id
            client.log_metric(made, "loss", loss)
            return made

        own = {"mlflow.parentRunId": parent}
        job("again", "1", 2.0, 20, **own)
        job("interrupted", "1", 9.0, 10, **own)
        done = [job("own", "2", 3.0, 15, **own), job("other sweep's", "3", 1.0, 5), job("too bad", "4", 8.0, 5)]
        client.set_tag(parent, "foundry.sweep.done", json.dumps(done))
        runs = Runs(client, experiment)
        found = runs.find([parent], "metrics.loss < 5", ["metrics.loss ASC"], 9)
    assert [run.name for run in found.runs] == ["other sweep's", "again", "own"]


@pytest.mark.parametrize("what", ["id", "folder"])
def test_a_sweep_is_its_jobs(call, filled, what):
    _, _, parent = filled
    code, out, _ = call(parent[:10] if what == "id" else "sweep", "--sort", "logic_score", "--csv")
    assert code == 0
    assert [row["run"] for row in csv.DictReader(io.StringIO(out))] == ["third", "second", "<b>first</b>"]


def test_a_run_is_known_by_its_directory_and_orders_and_filters_are_mlflows(call):
    assert "alone" in call("alone", "--md")[1]
    _, out, _ = call("--filter", "metrics.logic_score < 0.65", "--sort", "loss:desc", "--json")
    assert [record["run"] for record in json.loads(out)] == ["<b>first</b>", "second"]
    _, out, _ = call("--sort", "loss", "--last", "1", "--json")
    assert [record["run"] for record in json.loads(out)] == ["alone"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "'nothing' is no experiment, sweep, run or run directory"),
        (["abcdef0"], "'abcdef0' is no experiment"),
        (["--filter", "loss <"], "compare: "),
        (["--filter", "metrics.logic_score > 5"], "no run in experiment foundry"),
        (["--last", "0"], "--last: found 0"),
        (["--sort", "loss:up"], "--sort: found 'loss:up'"),
        (["foundry", "abcdef0"], "an experiment is compared on its own"),
    ],
)
def test_what_cannot_be_compared_is_one_line(call, words, said):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_looking_makes_no_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert main(["compare"]) == 2
    assert "there are no runs yet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_is_whole_and_escapes_names(call, filled, tmp_path, monkeypatch):
    folder, _, _ = filled
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, _, _ = call("sweep", "--html", "page.html")
    text = (folder / "page.html").read_text()
    assert code == 0
    assert "&lt;b&gt;first" in text
    assert "<b>first" not in text
    assert "2+2?" in text
    assert text.count("<polyline") == 6, "three runs over steps and over tokens"
    assert not re.search(r"(src|href)=", text)
    assert not list(tmp_path.iterdir()), "what was downloaded stayed"


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.slow
def test_a_heading_sorts_in_a_browser(filled, tmp_path):
    _, runs, parent = filled
    found = runs.find([parent], "", [], 9)
    text = page(compare("t", found.runs), runs)
    click = "<script>document.querySelectorAll('thead button')[1].click()</script></body>"
    (tmp_path / "page.html").write_text(text.replace("</body>", click))
    command = ["chromium", "--headless", "--no-sandbox", "--dump-dom", str(tmp_path / "page.html")]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=os.environ | {"HOME": str(tmp_path)}
    ).stdout
    body = shown.partition("<tbody>")[2].partition("</tbody>")[0]
    column = [re.findall(r'data-value="([^"]*)"', row)[1] for row in body.split("<tr>")[1:]]
    assert column == sorted(column)
    assert len(column) == 3
