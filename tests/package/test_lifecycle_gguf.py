"""`foundry train package=gguf` as a person calls it: what is published, what a gate that is not met leaves."""

import json
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.slow
ROWS = [
    "data.size=48",
    "data.eval_size=8",
    "examine.gates.logic_score.min_gain=null",
    "examine.metrics.logic_score.max_new_tokens=2",
]
PACKAGE = [
    "package=gguf",
    "package.parity.prompts=8",
    "package.parity.places=4",
    "package.parity.max_new_tokens=8",
    "package.deployment.rounds=1",
    "package.context=512",
]
LEARN = ["prune=none", "method.max_steps=2", "method.adapter.rank=4"]
SHORT = [*ROWS, *LEARN, *PACKAGE]
TINY = [
    "model=tiny",
    *ROWS,
    *PACKAGE,
    "package.parity.prompts=2",
    "package.parity.golden=[What now?]",
    "package.parity.max_new_tokens=2",
]
QUICK = [*TINY, *LEARN]


def run_dir(folder):
    (found,) = (folder / "outputs" / "train").iterdir()
    return found


def tracked(folder):
    """The one run of the store, and the names of its package's artefacts."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run.data, {item.path.removeprefix("package/") for item in client.list_artifacts(run.info.run_id, "package")}


def test_files_are_sealed_published_and_verified(cli, tmp_path):
    done = cli("train", *QUICK, "publish.tag=v1")
    assert done.returncode == 0, done.stderr
    release = tmp_path / "outputs" / "registry" / "train" / "v1"
    for folder in (run_dir(tmp_path), release):
        names = {path.name for path in (folder / "package").iterdir()}
        assert {"model-Q8_0.gguf", "Modelfile", "SHA256SUMS", "eval_log.md"} <= names
    assert "| Q8\\_0 |" in (release / "model" / "README.md").read_text()
    assert "package/model-Q8_0.gguf" in (release / "report.html").read_text()
    assert "package" in done.stdout
    run, papers = tracked(tmp_path)
    assert papers == {"Modelfile", "SHA256SUMS", "eval_log.md", "lifecycle.png", "lifecycle.svg"}
    assert run.tags["package"] == "passed"
    size = (release / "package" / "model-Q8_0.gguf").stat().st_size / 1e6
    assert run.metrics["package/Q8_0/size_mb"] == pytest.approx(size)
    wanted = {
        "kl",
        "top1",
        "answers",
        "smaller",
        "seconds",
        "logic_score",
        "tokens_per_s",
        "first_token_s",
        "peak_memory_gb",
    }
    assert {f"package/Q8_0/{name}" for name in wanted} <= run.metrics.keys()
    assert run.metrics["package/merged/top1"] == 1.0
    sealed = json.loads((release / "lot.json").read_text())["sealed"]
    assert "package/model-Q8_0.gguf" in sealed
    assert cli("verify", str(release)).returncode == 0
    with (release / "package" / "model-Q8_0.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    verified = cli("verify", str(release))
    assert verified.returncode == 4
    assert "model-Q8_0.gguf differs" in verified.stderr


def test_a_bound_that_is_not_met_publishes_nothing(cli, tmp_path):
    done = cli("train", *QUICK, "package.parity.q8_0.kl=0.0")
    assert done.returncode == 5, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("foundry: ")]
    assert "package: Q8_0: divergence" in line
    assert "arose between merged and Q8_0; nothing was published" in line
    assert "its package FAILED" in done.stdout
    assert not (tmp_path / "outputs" / "registry").exists()
    run, papers = tracked(tmp_path)
    assert (run.tags["verdict"], run.tags["package"]) == ("passed", "failed")
    assert "eval_log.md" in papers
    assert "but its package failed" in (run_dir(tmp_path) / "report.html").read_text()
    assert "**Not met**" in (run_dir(tmp_path) / "package" / "eval_log.md").read_text()


def test_a_merge_is_packaged_as_a_student_is(cli, tmp_path):
    places = []
    for job in ("one", "other"):
        words = [*LEARN, "data.size=48", "examine=none", "publish=none", "model=tiny"]
        done = cli("train", *words, f"job_id={job}", f"compute.seed={len(job)}")
        assert done.returncode == 0, done.stderr
        places += (tmp_path / "outputs" / job).iterdir()
    parents = ", ".join(f"{{path: {place}}}" for place in places)
    done = cli("merge", *TINY, f"recipe.adapters=[{parents}]", "publish.tag=v1")
    assert done.returncode == 0, done.stderr
    package = tmp_path / "outputs" / "registry" / "merge" / "v1" / "package"
    assert "**Passed**" in (package / "eval_log.md").read_text()
    assert "dare_ties" in (package / "lifecycle.svg").read_text()


def test_what_failed_its_examination_is_not_packaged(cli, tmp_path):
    done = cli("train", *QUICK, "examine.gates.logic_score.min=0.99")
    assert done.returncode == 5, done.stderr
    assert not (run_dir(tmp_path) / "package").exists()


def test_the_chain_to_q8_0_passes_on_smollm2(cli, tmp_path):
    done = cli("train", *SHORT, "package.adapter_gguf=true", timeout=1800)
    assert done.returncode == 0, done.stderr
    page = (run_dir(tmp_path) / "package" / "eval_log.md").read_text()
    assert "**Passed**" in page
    assert "\n| adapter |" in page


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="K-quants need llama-cpp-python")
def test_q4_k_m_breaks_smollm2_and_the_gate_says_where(cli):
    done = cli("train", *SHORT, "package.quantization=[Q4_K_M]", timeout=1800)
    assert done.returncode == 5, done.stderr
    assert "the difference arose between F16 and Q4_K_M" in done.stderr
