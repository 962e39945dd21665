"""foundry merge: two trained adapters become one examined, published, verifiable model, whole or not at all."""

import contextlib
import io
import json
import shutil
import signal
import sys

import pytest
import yaml
from processes import Job

import foundry as package
from foundry import lot
from foundry.verify import verify

ROWS = ["data.size=48", "data.eval_size=24"]
TINY = ["model=tiny", *ROWS]
EXAM = ["examine.metrics.logic_score.max_new_tokens=2", "examine.gates.logic_score.min_gain=null"]
ALONE = ["examine=none", "publish=none"]


def foundry(folder, *words):
    """Run the command in this process, from `folder`."""
    from foundry.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def adapters(*places):
    weights = (1.0, 0.8)
    return f"recipe.adapters=[{','.join(f'{{path: {p}, weight: {w}}}' for p, w in zip(places, weights, strict=True))}]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a LoRA run that was published, and a DoRA run of another rank that was not."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", *TINY, "prune=none", "method.max_steps=2"]
    for more in (
        [*EXAM, "job_id=logic", "publish.tag=v1"],
        ["method=dora", "method.adapter.rank=3", "job_id=safety", *ALONE],
    ):
        code, _, err = foundry(folder, *words, *more)
        assert code == 0, err
    (second,) = (folder / "outputs" / "safety").iterdir()
    return folder, folder / "outputs" / "registry" / "logic" / "v1", second


@pytest.fixture(scope="module")
def merged(trained):
    folder, first, second = trained
    code, out, err = foundry(folder, "merge", *TINY, *EXAM, adapters(first, second), "job_id=both", "publish.tag=v1")
    assert (code, err) == (0, "")
    (run_dir,) = (folder / "outputs" / "both").iterdir()
    return folder, run_dir, out


def test_a_run_directory_holds_what_it_promises(merged):
    _, run_dir, out = merged
    assert {path.name for path in run_dir.iterdir()} == {
        "manifest.yaml", "lot.json", "metrics.jsonl", "model", "verdict.json", "report.html", "release.json",
        "foundry.log",
    }  # fmt: skip
    assert {path.name for path in (run_dir / "model").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "README.md",
    }  # fmt: skip
    number = lot.read(run_dir)["lot"]
    for word in [
        "foundry merge",
        number[:12],
        "logic + safety by dare_ties",
        "peak memory",
        "v1",
        "logic_score",
        "passed",
    ]:
        assert word in " ".join(out.split())


def test_the_lot_names_the_parents_and_everything_verifies(merged, trained):
    folder, run_dir, _ = merged
    contents = lot.read(run_dir)["contents"]
    assert contents["parents"] == [lot.read(place)["lot"] for place in trained[1:]]
    assert contents["libraries"]["mergekit"]
    for place in (run_dir, folder / "outputs" / "registry" / "both" / "v1"):
        findings = {finding.name: finding for finding in verify(place)}
        assert not [finding for finding in findings.values() if finding.bad]
        assert findings["base model"].state == findings["data"].state == "ok"


def test_report_and_card_show_the_recipe(merged, trained):
    _, run_dir, _ = merged
    numbers = [lot.read(place)["lot"] for place in trained[1:]]
    for text in ((run_dir / "report.html").read_text(), (run_dir / "model" / "README.md").read_text()):
        for number in numbers:
            assert number in text
        for word in ("logic", "safety", "weight 0.8", "density 0.5"):
            assert word in text
    card = (run_dir / "model" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model_relation"] == "merge"
    assert {"merge", "mergekit"} <= set(front["tags"])
    assert "recipe.adapters" in card
    report = (run_dir / "report.html").read_text()
    assert "Fusion" in report
    assert "Training loss" not in report


def test_the_verdict_measures_the_parents_too(merged):
    (measurement,) = json.loads((merged[1] / "verdict.json").read_text())["measurements"]
    assert measurement["parents"].keys() == {"logic", "safety"}


def test_mlflow_shows_the_merge(merged):
    from mlflow import MlflowClient

    folder, run_dir, _ = merged
    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (run,) = [run for run in found if run.info.run_name == "both"]
    assert run.data.params["recipe.adapters.1.weight"] == "0.8"
    assert run.data.tags["lot"] == lot.read(run_dir)["lot"]
    assert {"merge_seconds", "weights_fused", "logic_score"} <= run.data.metrics.keys()


def test_transformers_loads_what_was_fused(merged):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = merged[1] / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Hello", return_tensors="pt").input_ids
    assert model(ids).logits.isfinite().all()


@pytest.mark.slow
def test_its_manifest_makes_the_same_bytes_again_in_another_process_with_other_threads(merged):
    folder, run_dir, _ = merged
    words = [f"manifest={run_dir}/manifest.yaml", "job_id=again", *ALONE]
    for threads in ("1", "2"):
        with Job(folder, "merge", *words, OMP_NUM_THREADS=threads, PYTHONHASHSEED=threads) as job:
            assert job.wait() == 0, job.err
    names = list((folder / "outputs" / "again").glob("*/model/model.safetensors"))
    assert len(names) == 2
    for name in names:
        assert name.read_bytes() == (run_dir / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "outputs" / "again")


def test_a_sweep_overrides_density_and_one_parent_s_weight(trained, tmp_path):
    _, first, second = trained
    words = ["-m", "model=tiny", adapters(first, second), *ALONE, "recipe.density=0.3,0.6"]
    code, _, err = foundry(tmp_path, "merge", *words, "recipe.adapters.1.weight=0.5,1.0")
    assert code == 0, err
    found = [yaml.safe_load(path.read_text())["recipe"] for path in tmp_path.glob("multirun/merge/*/*/manifest.yaml")]
    assert sorted((one["density"], one["adapters"][1]["weight"]) for one in found) == [
        (0.3, 0.5), (0.3, 1.0), (0.6, 0.5), (0.6, 1.0),
    ]  # fmt: skip
    assert len({path.read_bytes() for path in tmp_path.glob("multirun/merge/*/*/model/model.safetensors")}) == 4


def test_an_adapter_comes_out_and_goes_in_again(trained, tmp_path):
    _, first, second = trained
    words = [adapters(first, second), *ALONE, "recipe.output=adapter", "recipe.rank=8", "job_id=small"]
    code, out, err = foundry(tmp_path, "merge", "model=tiny", *words)
    assert code == 0, err
    assert "change kept" in out
    (run_dir,) = (tmp_path / "outputs" / "small").iterdir()
    assert (run_dir / "model" / "adapter_model.safetensors").is_file()
    assert not [finding for finding in verify(run_dir) if finding.bad]
    code, out, err = foundry(tmp_path, "merge", "model=tiny", adapters(run_dir, first), *ALONE, "dry_run=true")
    assert code == 0, err
    assert "small · adapter · lot" in out


def test_a_file_of_mergekit_s_runs_as_it_is_the_same_every_time(trained, tmp_path):
    _, first, second = trained
    own = {"weight": 0.5, "density": [0.3, 0.9]}
    content = {
        "merge_method": "dare_ties",
        "base_model": "tiny",
        "models": [{"model": f"tiny+{place}", "parameters": own} for place in (first, second)],
        "dtype": "float32",
    }
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(content))
    words = ["model=tiny", "recipe=file", "recipe.path=merge.yml", "recipe.seed=3", *ALONE]
    for threads in ("1", "2"):
        with Job(tmp_path, "merge", *words, OMP_NUM_THREADS=threads, PYTHONHASHSEED=threads) as job:
            assert job.wait() == 0, job.err
    made = list((tmp_path / "outputs" / "merge").iterdir())
    assert len({(run / "model" / "model.safetensors").read_bytes() for run in made}) == 1
    assert lot.read(made[0])["contents"]["parents"] == [lot.read(place)["lot"] for place in (first, second)]
    assert not [finding for finding in verify(made[0]) if finding.bad]
    assert not list(made[0].glob(".model*"))


def test_parents_that_changed_or_are_of_another_base_are_refused(trained, tmp_path):
    _, first, second = trained
    shutil.copytree(second, tmp_path / "changed")
    path = tmp_path / "changed" / "model" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, _, err = foundry(tmp_path, "merge", "model=tiny", adapters(first, tmp_path / "changed"), *ALONE)
    assert (code, err.count("\n"), "differs from" in err) == (4, 1, True)
    code, _, err = foundry(tmp_path, "merge", "model=tiny", "model.seed=1", adapters(first, second), *ALONE)
    assert (code, err.count("\n"), "was made from tiny" in err) == (4, 1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["changed"]


def test_a_dry_run_writes_nothing(trained, tmp_path):
    _, first, second = trained
    code, out, err = foundry(tmp_path, "merge", *TINY, adapters(first, second / "model"), "dry_run=true")
    assert (code, err) == (0, "")
    assert "the parents fit; nothing was fused" in out
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_examined_is_not_fused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("foundry.hardware.free_memory", lambda _: 10**6)
    code, _, err = foundry(tmp_path, "merge", *TINY, adapters(*trained[1:]))
    assert (code, err.count("\n"), "memory needed to examine what is fused" in err) == (3, 1, True)
    assert not list(tmp_path.iterdir())


def test_the_api_is_the_same_machinery(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = package.compose(["model=tiny", adapters(*trained[1:]), *ALONE], "merge")
    before = len(b"x" * 3_000_000_000)  # of which nothing is left when the merge begins
    release = package.merge(manifest)
    assert release.checkpoint.kind == "full"
    assert sys.platform != "linux" or release.checkpoint.metrics["peak_memory_bytes"] < before
    assert release.checkpoint.fusion.names == ["logic", "safety"]
    assert not [finding for finding in package.verify(release.uri) if finding.bad]


def test_parents_on_s3_are_fetched_once(trained, tmp_path, monkeypatch):
    import fsspec

    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    pytest.importorskip("s3fs")
    _, first, second = trained
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("parents")
        for name, place in (("a", first), ("b", second / "model")):
            system.put(f"{place}/", f"parents/{name}/", recursive=True)
        words = ["model=tiny", adapters("s3://parents/a", "s3://parents/b/"), *ALONE]
        code, out, err = foundry(tmp_path, "merge", *words, "job_id=far")
        assert code == 0, err
        near = foundry(tmp_path, "merge", "model=tiny", adapters(first, second), *ALONE, "job_id=near")
        assert near[0] == 0, near[2]
        assert "logic · adapter · lot" in out
        assert len({path.read_bytes() for path in tmp_path.glob("outputs/*/*/model/model.safetensors")}) == 1
        code, _, err = foundry(tmp_path, "merge", "model=tiny", adapters("s3://parents/none", first), *ALONE)
        assert (code, err.count("\n"), "found nothing at 's3://parents/none'" in err) == (2, 1, True)
    finally:
        server.stop()


def models(folder):
    return [path.parent for path in folder.glob("outputs/merge/*/model")]


@pytest.mark.slow
def test_killed_at_any_moment_nothing_looks_like_a_model_and_the_next_run_clears_up(tmp_path):
    words = ["merge", "model=tiny", "model.layers=24", "model.hidden_size=256"]
    train = [*TINY[1:], "prune=none", "method.max_steps=1", "method.save_steps=9", *ALONE, "job_id=big"]
    code, _, err = foundry(tmp_path, "train", *words[1:], *train)
    assert code == 0, err
    (parent,) = (tmp_path / "outputs" / "big").iterdir()
    words += [f"recipe.adapters=[{{path: {parent}}}]", *ALONE]
    inside = 0
    for round_ in range(6):
        with Job(tmp_path, *words) as job:
            if round_ % 2:
                job.until(lambda: "\nmodel" in job.out)
            else:
                job.until(lambda: list(tmp_path.glob("outputs/merge/*/.model-*.part/*.safetensors")))
            job.send(signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL
        inside += bool(list(tmp_path.glob("outputs/merge/*/.model-*.part")))
        assert not models(tmp_path)
        assert not list(tmp_path.glob("outputs/merge/*/lot.json"))
    assert inside >= 2
    code, _, err = foundry(tmp_path, *words)
    assert (code, err) == (0, "")
    (run_dir,) = models(tmp_path)
    assert not list(tmp_path.glob("outputs/merge/*/.model-*"))
    assert not [finding for finding in verify(run_dir, sources=False) if finding.bad]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_model(trained, tmp_path):
    _, first, second = trained
    with Job(tmp_path, "merge", "model=tiny", adapters(first, second), *ALONE, file_limit=2**20) as job:
        assert job.wait() == 3, job.err
        (line,) = [line for line in job.err.splitlines() if line.startswith("foundry:")]
    assert "File too large" in line
    assert not models(tmp_path)
    assert not list(tmp_path.glob("outputs/merge/*/.model-*"))
