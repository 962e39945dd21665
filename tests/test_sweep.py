"""Sweeps through the command: a parent with children, failures that stop nobody, jobs that are not done twice."""

import json
import platform
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lifecycle import OPEN, client, foundry, runs

from foundry.sweep import Member, Optimize, Parent, members, name_of, read_member, write_member, write_parent

SWEPT = [*OPEN, "publish=none", "prune=exact", "method=lora,dora", "method.max_length=8,512"]
"""Two of its four jobs fail, for a prompt of a syllogism has more than eight tokens."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep that was run once, and the folder it was run in."""
    folder = tmp_path_factory.mktemp("swept")
    done = foundry(folder, "train", "-m", *SWEPT)
    (place,) = (folder / "multirun" / "train").iterdir()
    return folder, place, done


def by_name(folder):
    return {run.info.run_name: run for run in runs(folder)}


def test_a_job_that_fails_does_not_stop_the_next(swept):
    _, place, done = swept
    assert done.returncode == 4
    *said, last = done.stderr.splitlines()
    assert len(said) == 2
    assert last.startswith("foundry: sweep: 4 jobs, 2 failed; the first to fail: lora max_length=8: data: ")
    assert "nothing to learn" in last
    assert [(member.name, member.code) for member in members(place)] == [
        ("lora max_length=8", 4), ("lora max_length=512", 0), ("dora max_length=8", 4), ("dora max_length=512", 0),
    ]  # fmt: skip
    assert sorted(path.parent.name for path in place.glob("*/model")) == ["1", "3"]


def test_a_sweep_is_the_parent_of_its_jobs(swept):
    folder, place, _ = swept
    found = by_name(folder)
    parent = found.pop("train: method × max_length")
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert {name: run.info.status for name, run in found.items()} == {
        "lora max_length=8": "FAILED", "lora max_length=512": "FINISHED",
        "dora max_length=8": "FAILED", "dora max_length=512": "FINISHED",
    }  # fmt: skip
    assert "nothing to learn" in found["dora max_length=8"].data.tags["foundry.failure"]
    assert parent.data.params["sweep.method"] == "lora,dora"
    assert parent.info.status == "FAILED"
    assert "2 failed" in parent.data.tags["foundry.failure"]
    assert json.loads((place / "sweep.json").read_text())["run_id"] == parent.info.run_id


def test_the_comparison_is_stored_with_the_parent(swept):
    folder, place, done = swept
    parent = by_name(folder)["train: method × max_length"]
    stored = {artifact.path for artifact in client(folder).list_artifacts(parent.info.run_id)}
    assert {"compare.html", "compare.json"} <= stored
    table = json.loads((place / "compare.json").read_text())
    assert {record["run"]: record["verdict"] for record in table}["lora max_length=8"] == "failed"
    assert {record["method"] for record in table} == {"lora", "dora"}
    assert "dora max_length=512" in (place / "compare.html").read_text()
    assert "dora max_length=512" in done.stdout.rpartition("compare  ")[2]


@pytest.mark.slow
def test_a_job_of_a_sweep_is_the_same_job_alone(swept, tmp_path):
    _, place, _ = swept
    alone = [word.replace("lora,dora", "dora").replace("8,512", "512") for word in SWEPT]
    assert foundry(tmp_path, "train", *alone).returncode == 0
    (run_dir,) = (tmp_path / "outputs" / "train").iterdir()
    name = "model/adapter_model.safetensors"
    assert (run_dir / name).read_bytes() == (place / "3" / name).read_bytes()
    first, second = ((folder / "loss.csv").read_text().splitlines() for folder in (run_dir, place / "3"))
    at = first[0].split(",").index("loss")
    assert [line.split(",")[at] for line in first] == [line.split(",")[at] for line in second]
    lots = [json.loads((folder / "lot.json").read_text())["lot"] for folder in (run_dir, place / "3")]
    assert lots[0] == lots[1]


@pytest.mark.slow
def test_the_same_command_finishes_a_sweep_that_had_failures(swept):
    folder, place, _ = swept
    again = foundry(folder, "train", "-m", *SWEPT, "sweep.skip_done=true")
    assert again.returncode == 4
    assert again.stdout.count("done already") == 2
    (new,) = set((folder / "multirun" / "train").iterdir()) - {place}
    assert not list(new.glob("*/model"))
    assert [bool(member.done) for member in members(new)] == [False, True, False, True]
    assert len([run for run in runs(folder) if "mlflow.parentRunId" not in run.data.tags]) == 1, "it goes on"
    compared = foundry(folder, "compare", str(new), "--json")
    names = [record["run"] for record in json.loads(compared.stdout)]
    assert sorted(names) == sorted(by_name(folder).keys() - {"train: method × max_length"}), "each job once"
    other = foundry(folder, "train", "-m", *[*SWEPT[:-1], "method.max_length=512"], "sweep.skip_done=true")
    assert other.returncode == 0
    assert other.stdout.count("done already") == 2
    assert "2 jobs, all done" in other.stdout
    table = json.loads(max((folder / "multirun" / "train").glob("*/compare.json")).read_text())
    assert {record["run"] for record in table} == {"lora max_length=512", "dora max_length=512"}


@pytest.mark.slow
def test_a_gate_that_some_jobs_do_not_meet_is_said_at_the_end(tmp_path):
    done = foundry(
        tmp_path, "train", "-m", *OPEN, "publish=none", "prune=exact", "examine.gates.logic_score.min=0.0,1.0"
    )
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == (
        "foundry: gate: 2 jobs, 1 did not meet their gates; of these nothing was published"
    )
    parent = next(run for run in runs(tmp_path) if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FINISHED"


NAMES = st.from_regex(r"[a-z]+(\.[a-z]+)*=[a-z0-9]+", fullmatch=True)


@given(overrides=st.lists(NAMES, unique_by=lambda override: override.partition("=")[0]), shared=st.integers(0, 9))
def test_a_jobs_name_has_what_sets_it_apart_and_nothing_else(overrides, shared):
    name = name_of(overrides, overrides[:shared])
    words = {override.partition("=")[2] for override in overrides[shared:]}
    assert {word.rpartition("=")[2] for word in name.split()} == (words or {"job"})


@pytest.mark.parametrize(
    ("overrides", "typed", "name"),
    [
        (["method=dora", "method.adapter.rank=16", "data.limit=9"], ["method=lora,dora", "data.limit=9"], "dora r=16"),
        (["+compute.seed=3", "job_id=b"], [], "seed=3 job_id=b"),
        (["data.limit=9"], ["data.limit=9"], "job"),
        (
            ["method=dora", "sweep.skip_done=True", "method.learning_rate=0.001", "+data.keep=None"],
            ["method=lora,dora", "sweep.skip_done=true", "method.learning_rate=1e-3", "+data.keep=null"],
            "dora",
        ),
    ],
)
def test_names_are_short(overrides, typed, name):
    assert name_of(overrides, typed) == name


def test_what_was_not_measured_is_not_a_number():
    several = Optimize(metric=("a", "b"), direction=("maximize", "minimize"))
    first, second = several.reached({"a": 1})
    assert first == 1
    assert second != second
    assert Optimize(metric="a").reached({"a": 0.5}) == 0.5
    assert Optimize(metric=["a", "b"]).goals() == [("a", "maximize"), ("b", "maximize")]
    with pytest.raises(ValueError, match="2 directions for 1 metrics"):
        Optimize(metric="a", direction=("maximize", "minimize"))


def test_word_is_left_for_jobs_in_other_processes(tmp_path):
    write_parent(tmp_path, Parent("id", ["a=1,2"]))
    member = Member("a=1", "id", code=4, line="data: no")
    write_member(tmp_path / "0", member)
    assert read_member(tmp_path / "0") == member
    assert read_member(tmp_path) is None
    assert members(tmp_path) == [member]


@pytest.mark.slow
def test_a_search_runs_its_trials_and_names_the_best(tmp_path):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.sampler=random"]
    goal = ["optimize.metric=[train_loss,trainable_parameters]", "optimize.direction=[minimize,minimize]"]
    swept = [
        "method.adapter.rank=int(interval(2,9))",
        "method.learning_rate=tag(log,interval(1e-4,1e-2))",
        "method=lora,dora",
    ]
    done = foundry(tmp_path, "train", "-m", *OPEN, "publish=none", "prune=exact", *search, *goal, *swept)
    assert done.returncode == 0, done.stderr
    (place,) = (tmp_path / "multirun" / "train").iterdir()
    told = json.loads((place / "compare.json").read_text())
    assert len(told) == 3
    assert len({(record["rank"], record["method"], record["differs"]) for record in told}) == 3
    assert all(2 <= record["rank"] <= 9 for record in told)
    parent = next(run for run in runs(tmp_path) if "mlflow.parentRunId" not in run.data.tags)
    losses = {
        run.info.run_name: run.data.metrics["train_loss"]
        for run in runs(tmp_path)
        if run is not parent and "train_loss" in run.data.metrics
    }
    assert min(losses, key=losses.get) in parent.data.tags["foundry.best"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compute.seed=3"], "nothing to search"),
        (["compute.seed=0,1", "hydra.sweeper.trials=0"], "hydra.sweeper.trials: found 0, expected 1 or more"),
        (["compute.seed=0,1", "hydra.sweeper.sampler=magic"], "hydra.sweeper.sampler: found 'magic'"),
        (["compute.seed=0,1", "optimize.metric=null"], "optimize.metric: found null"),
        (["compute.seed=0,1", "optimize.metric=[a,b]", "optimize.direction=[minimize]"], "1 directions for 2 metrics"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(tmp_path, overrides, said):
    done = foundry(tmp_path, "train", "-m", "hydra/sweeper=optuna", *overrides)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()], "a search that never began left something behind"


def test_each_job_gives_its_memory_back_before_the_next(tmp_path, monkeypatch):
    from foundry import multirun
    from foundry.__main__ import main

    done = []
    given = multirun.give_back
    monkeypatch.setattr(
        multirun, "give_back", lambda: done.append(len([*tmp_path.glob("multirun/*/*/*/model")])) or given()
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *OPEN, "publish=none", "prune=exact", "compute.seed=1,2"]) == 0
    assert done == [1, 2]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has malloc_trim")
def test_what_a_job_freed_goes_back_to_the_system():
    """In a process of its own: pieces too small for glibc to give back by itself, with one kept behind them."""
    code = """
import psutil
from foundry.hardware import give_back
held = [bytearray(60_000) for _ in range(4_000)]
last = held.pop()
before = psutil.Process().memory_info().rss
del held
freed = psutil.Process().memory_info().rss
give_back()
after = psutil.Process().memory_info().rss
assert before - freed < 24e6 and before - after > 200e6, (before, freed, after)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
