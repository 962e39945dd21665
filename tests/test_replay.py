"""Jobs described by a file: a run's own manifest, a run to resume, the older form; and what a manifest may hold."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from processes import Job

import foundry
from foundry import train as entry
from foundry.errors import ConfigError
from foundry.replay import _escaped, expand, parse, quoted
from foundry.run import write_yaml

OLDER = """
job_id: legacy_job
base_model: some/model
method_config: {type: dora, rank: 64, strict_hardware_check: false}
publish_target: {registry: shelf, tag: v1, trigger_deployment: true}
compute: {batch_size: 2, grad_accum: 4}
"""


@pytest.fixture
def older(tmp_path):
    (tmp_path / "job.yaml").write_text(OLDER)
    return tmp_path / "job.yaml"


def recorded(folder: Path, *overrides: str) -> Path:
    """A run directory with the manifest of a job composed from these overrides."""
    folder.mkdir()
    write_yaml(folder / "manifest.yaml", foundry.compose(overrides).record())
    return folder


@pytest.fixture
def run(tmp_path):
    overrides = ["job_id=first", "data=jsonl", "data.path=rows.jsonl", "data.limit=7", "method=full", "model=tiny"]
    return recorded(tmp_path / "run", *overrides, "method.learning_rate=0.5", "publish.tag=v7")


def one(call):
    """The one job of a call that went well."""
    assert (call.code, call.err) == (0, "")
    assert len(call.jobs) == 1
    return call.jobs[0]


# The older form.


def test_every_key_of_the_older_form_is_taken(train, older):
    job = one(train(f"manifest={older}"))
    assert (job.job_id, job.model.name) == ("legacy_job", "some/model")
    assert (job.method.adapter.dora, job.method.adapter.rank, job.method.strict_hardware_check) == (True, 64, False)
    assert (job.publish.registry, job.publish.tag, job.publish.trigger_deployment) == ("shelf", "v1", True)
    assert (job.compute.batch_size, job.compute.grad_accum) == (2, 4)
    assert job.manifest is None


@pytest.mark.usefixtures("older")
def test_the_run_lies_under_the_files_job_id(train):
    assert "outputs/legacy_job" in train("manifest=job.yaml").written


@pytest.mark.parametrize("first", [True, False])
def test_overrides_win_wherever_they_stand(train, older, first):
    given_ = ["method=lora", "method.adapter.rank=8", "job_id=mine", "compute.batch_size=3", "publish.tag=null"]
    argv = [*given_, f"manifest={older}"] if first else [f"manifest={older}", *given_]
    job = one(train(*argv))
    assert (job.job_id, job.method.adapter.dora, job.method.adapter.rank) == ("mine", False, 8)
    assert (job.compute.batch_size, job.compute.grad_accum, job.publish.tag) == (3, 4, None)


def test_another_model_or_registry_takes_the_place_of_the_files(train, older):
    job = one(train(f"manifest={older}", "model=tiny", "publish=none", "examine=none"))
    assert (type(job.model).__name__, type(job.publish).__name__) == ("Tiny", "Unpublished")


def test_the_older_form_can_be_swept(train, older):
    call = train("-m", f"manifest={older}", "method=lora,dora")
    assert [(job.method.adapter.dora, job.method.adapter.rank) for job in call.jobs] == [(False, 64), (True, 64)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("job_id: a\nbase_modl: x", "job.yaml: base_modl: unknown key; did you mean 'base_model'?"),
        (
            "job_id: a\nmethod_config: {rnk: 8}",
            "job.yaml: method_config.rnk: unknown key; did you mean 'method_config.rank'?",
        ),
        ("job_id: a\nmethod_config: 3", "job.yaml: method_config: unknown key"),
        ("job_id: a\nmethod_config: {rank: 0}", "method.adapter.rank: found 0, expected 1 or more"),
        ("job_id: a\nmethod_config: {type: lorra}", "method=lorra: no such option; did you mean 'lora'?"),
        ("job_id: a\nmethod_config: {type: 3}", "method: found 3, expected an option"),
        ("job_id: a\nbase_model: [x, y]", "job.yaml: base_model: found ['x', 'y'], expected one value"),
        (
            "job_id: a\npublish_target: {registry: 'ftp://host/x'}",
            "job.yaml: publish_target.registry: found 'ftp://host/x'",
        ),
        ("job_id: a\njob_id: b", "job.yaml:2:1: YAML syntax error: found duplicate key job_id"),
        ("job_id: [", "job.yaml:1:10: YAML syntax error"),
        ("base_model: x", "job.yaml: expected a mapping with a job_id, found {'base_model': 'x'}"),
        ("- 1", "job.yaml: expected a mapping with a job_id, found [1]"),
        ("text", "job.yaml: "),
        ("", "job.yaml: expected a mapping with a job_id, found {}"),
    ],
)
def test_mistakes_in_the_older_form(train, tmp_path, text, says):
    (tmp_path / "job.yaml").write_text(text)
    call = train("manifest=job.yaml")
    assert (call.code, call.err.count("\n"), call.written) == (2, 1, [])
    assert says in call.err


def test_a_registry_given_with_the_file_is_the_one_that_counts(train, tmp_path):
    (tmp_path / "job.yaml").write_text("job_id: a\npublish_target: {registry: 'ftp://host/x', tag: v1}")
    job = one(train("manifest=job.yaml", "publish.registry=shelf"))
    assert (job.publish.registry, job.publish.tag) == ("shelf", "v1")


@pytest.mark.parametrize(
    ("registry", "kind"),
    [
        ("shelf", "local"),
        ("s3://bucket/x", "s3"),
        ("https://host/models.git", "git_lfs"),
        ("git@host:models.git", "git_lfs"),
        ("ssh://git@host/models", "git_lfs"),
        ("https://host:5000", "mlflow"),
    ],
)
def test_a_registry_of_the_older_form_chooses_its_kind(train, tmp_path, registry, kind):
    (tmp_path / "job.yaml").write_text(f"job_id: a\npublish_target: {{registry: '{registry}', tag: v1}}")
    job = one(train("manifest=job.yaml"))
    assert (type(job.publish).__module__, job.publish.registry) == (f"foundry.publish.{kind}", registry)


# A run's own manifest.


def test_a_run_is_replayed_as_it_was(train, run):
    job = one(train(f"manifest={run}/manifest.yaml"))
    assert job.record() | {"manifest": None} == yaml.safe_load((run / "manifest.yaml").read_text())
    assert job.manifest == f"{run}/manifest.yaml"
    assert job.method.adapter is None


def test_overrides_win_over_a_replayed_run(train, run):
    job = one(train("data.path=other.jsonl", "job_id=second", f"manifest={run}/manifest.yaml", "compute.seed=5"))
    assert (job.data.path, job.data.limit, job.job_id, job.compute.seed) == ("other.jsonl", 7, "second", 5)
    assert job.method.learning_rate == 0.5


def test_another_group_takes_the_place_of_the_whole_group(train, run):
    job = one(train("method.adapter.rank=9", "method=dora", f"manifest={run}/manifest.yaml"))
    assert (job.method.adapter.dora, job.method.adapter.rank) == (True, 9)
    assert job.method.learning_rate == foundry.compose(["method=dora"]).method.learning_rate
    assert job.data.path == "rows.jsonl"


def test_values_may_refer_to_the_replayed_ones(train, run):
    job = one(train(f"manifest={run}/manifest.yaml", "publish.name=${publish.tag}", "data.seed=${.limit}"))
    assert (job.publish.name, job.data.seed) == ("v7", 7)


def test_mappings_are_merged_into_the_replayed_ones(train, tmp_path):
    run = recorded(tmp_path / "run", "+data.task_settings.depth=3")
    job = one(train(f"manifest={run}/manifest.yaml", "data={size:12,task_settings:{width:4}}"))
    assert (job.data.size, dict(job.data.task_settings)) == (12, {"invalid_ratio": 0.5, "depth": 3, "width": 4})


def test_a_replay_can_be_swept(train, run):
    call = train("-m", f"manifest={run}/manifest.yaml", "method.learning_rate=0.1,0.2", "method=full,lora")
    found = [(job.method.learning_rate, job.method.adapter is None, job.data.limit) for job in call.jobs]
    assert found == [(0.1, True, 7), (0.1, False, 7), (0.2, True, 7), (0.2, False, 7)]


def test_a_run_goes_on_as_it_was(train, run):
    job = one(train(f"resume={run}", "method.max_steps=9"))
    assert (job.resume, job.data.path, job.method.max_steps) == (str(run), "rows.jsonl", 9)


def test_the_replay_of_a_resumed_run_does_not_resume(train, tmp_path, run):
    again = tmp_path / "again"
    again.mkdir()
    settings = yaml.safe_load((run / "manifest.yaml").read_text()) | {"resume": str(run), "manifest": "x"}
    write_yaml(again / "manifest.yaml", settings)
    assert one(train(f"manifest={again}/manifest.yaml")).resume is None
    assert one(train(f"resume={again}")).manifest is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["data.pth=x"], "data.pth: unknown key; did you mean 'path'? (allowed here: "),
        (["method.learning_rate=7"], "method.learning_rate: found 7, expected 1 or less"),
        (["hydrate=1"], "hydrate: unknown key"),
        (["+extra=1"], "extra: unknown key"),
        (["method=lorra"], "method=lorra: no such option; did you mean 'lora'?"),
        (["~data.limit"], "~data.limit: not beside manifest=…, whose file is the whole job; a key is taken out by"),
        (["experiment=x"], "experiment: not beside manifest=…"),
        (["+data@data.x=jsonl"], "+data@data.x: not beside manifest=…"),
        (["resume=run"], "manifest: not beside resume=…"),
    ],
)
def test_mistakes_beside_a_replayed_run(train, run, argv, says):
    call = train(f"manifest={run}/manifest.yaml", *argv)
    assert (call.code, call.err.count("\n"), call.written) == (2, 1, []), call.err
    assert says in call.err


def test_mistakes_in_a_replayed_manifest(train, run):
    path = run / "manifest.yaml"
    path.write_text(path.read_text().replace("learning_rate:", "lerning_rate:").replace("limit: 7", "limit: many"))
    call = train(f"manifest={path}")
    assert "data.limit: found 'many', expected a whole number" in call.err
    assert "method.lerning_rate: unknown key; did you mean 'learning_rate'?" in call.err
    path.write_text(path.read_text().replace("foundry.data.files.Files", "os.system"))
    assert "data._target_: found 'os.system'" in train(f"manifest={path}").err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("manifest=nope.yaml", "nope.yaml: No such file or directory"),
        ("resume=nope", "nope/manifest.yaml: No such file or directory"),
        ("manifest=.", ".: Is a directory"),
        ("manifest=", "manifest: found '', expected a path"),
        ("resume=3", "resume: found 3, expected a path"),
        ("manifest=[a]", "manifest: found ['a'], expected a path"),
    ],
)
def test_files_that_are_not_there(train, argv, says):
    call = train(argv)
    assert (call.code, call.err.count("\n"), call.written) == (2, 1, [])
    assert says in call.err


@pytest.mark.usefixtures("run")
def test_a_file_named_in_a_file_must_be_a_runs(train, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "again.yaml").write_text("# @package _global_\nmanifest: run/manifest.yaml")
    (tmp_path / "mine" / "experiment" / "older.yaml").write_text("# @package _global_\nmanifest: job.yaml")
    (tmp_path / "job.yaml").write_text(OLDER)
    assert one(train("--config-dir", "mine", "experiment=again")).data.path == "rows.jsonl"
    assert "manifest: job.yaml is no manifest of a run" in train("--config-dir", "mine", "experiment=older").err


def test_no_file_is_no_replay():
    assert expand(["manifest=null", "resume=null", "job_id=x"]) == ["manifest=null", "resume=null", "job_id=x"]


def test_the_config_that_is_shown_is_the_replayed_one(train, run):
    shown = yaml.safe_load(train("--cfg", "job", f"manifest={run}/manifest.yaml", "data.limit=8").out)
    assert (shown["data"]["path"], shown["data"]["limit"], shown["method"]["adapter"]) == ("rows.jsonl", 8, None)
    assert yaml.safe_load(train("--cfg", "job", "--package", "data", f"resume={run}").out)["path"] == "rows.jsonl"


# Secrets.


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("FOUNDRY_SECRET", "hunter2-hunter2")
    monkeypatch.setenv("FOUNDRY_NUMBER", "12")
    return "hunter2-hunter2"


REFERENCES = [
    "data.system_prompt=${oc.env:FOUNDRY_SECRET}",
    "publish.registry=srv/${oc.env:FOUNDRY_SECRET}/${job_id}",
    "publish.tag=${data.system_prompt}",
    "data.task_settings=\"${oc.decode:${oc.env:FOUNDRY_NOTHING,'{invalid_ratio: 0.25}'}}\"",
    'compute.seed="${oc.decode:${oc.env:FOUNDRY_NUMBER}}"',
    "method.adapter.targets=[q_proj,'${oc.env:FOUNDRY_SECRET}']",
]


def test_values_from_the_environment_are_used_but_not_recorded(secret):
    manifest = foundry.compose(REFERENCES)
    assert (manifest.data.system_prompt, manifest.publish.tag, manifest.compute.seed) == (secret, secret, 12)
    assert manifest.publish.registry == f"srv/{secret}/train"
    assert manifest.method.adapter.targets == ("q_proj", secret)
    record = manifest.record()
    assert secret not in yaml.safe_dump(record)
    assert record["data"]["system_prompt"] == "${oc.env:FOUNDRY_SECRET}"
    assert record["publish"]["registry"] == "srv/${oc.env:FOUNDRY_SECRET}/${job_id}"
    assert record["publish"]["tag"] == "${data.system_prompt}"
    assert record["compute"]["seed"] == "${oc.decode:${oc.env:FOUNDRY_NUMBER}}"
    assert record["method"]["adapter"]["targets"] == ["q_proj", "${oc.env:FOUNDRY_SECRET}"]
    assert record["publish"]["name"] == "train"
    assert record["data"]["task_settings"].startswith("${oc.decode:")


def test_a_record_with_references_replays(train, secret, tmp_path, monkeypatch):
    run = recorded(tmp_path / "run", *REFERENCES[:3], REFERENCES[4])
    monkeypatch.setenv("FOUNDRY_NUMBER", "13")
    job = one(train(f"manifest={run}/manifest.yaml"))
    assert (job.data.system_prompt, job.publish.tag, job.compute.seed) == (secret, secret, 13)
    assert job.record() | {"manifest": None} == yaml.safe_load((run / "manifest.yaml").read_text())
    job = one(train(f"manifest={run}/manifest.yaml", "data.system_prompt=plain"))
    assert (job.record()["data"]["system_prompt"], job.publish.tag) == ("plain", "plain")
    job = one(train(f"manifest={run}/manifest.yaml", "publish.name=${oc.env:FOUNDRY_NUMBER}"))
    assert (job.publish.name, job.record()["publish"]["name"]) == ("13", "${oc.env:FOUNDRY_NUMBER}")


def test_a_changed_copy_records_the_change_and_keeps_the_other_secrets(secret):
    manifest = foundry.compose(REFERENCES[:2])
    data = manifest.data.model_copy(update={"system_prompt": "plain"})
    record = manifest.model_copy(update={"data": data}).record()
    assert record["data"]["system_prompt"] == "plain"
    assert secret not in yaml.safe_dump(record)
    other = foundry.compose(["publish=none"]).publish
    assert manifest.model_copy(update={"publish": other}).record()["publish"] == {
        "_target_": "foundry.publish.none.Unpublished"
    }


def test_a_secret_is_not_told_in_a_message(secret):
    for override in ("compute.device", "method.adapter.rank", "data._target_", "publish.name"):
        with pytest.raises(ConfigError) as caught:
            foundry.compose(
                [
                    f"{override}=${{oc.env:FOUNDRY_SECRET}}/x"
                    if override == "publish.name"
                    else f"{override}=${{oc.env:FOUNDRY_SECRET}}"
                ]
            )
        assert override in str(caught.value)
        assert secret not in str(caught.value)


@pytest.mark.usefixtures("secret")
def test_a_job_writes_its_record(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(entry.outcome, "recorded", lambda _run_dir, settings: seen.append(settings) or 1 / 0)
    monkeypatch.chdir(tmp_path)
    assert entry.main(["data.system_prompt=${oc.env:FOUNDRY_SECRET}"]) == 1
    with pytest.raises(ZeroDivisionError):
        foundry.train(foundry.compose(["data.system_prompt=${oc.env:FOUNDRY_SECRET}"]))
    assert [settings["data"]["system_prompt"] for settings in seen] == ["${oc.env:FOUNDRY_SECRET}"] * 2


WRITTEN_OUT = [
    ("publish.registry", "publish=mlflow", "https://user:hunter2-hunter2@host/x"),
    ("publish.registry", "publish=git_lfs", "https://hunter2-hunter2@host/x.git"),
    ("publish.notify", "publish=local", "https://host/hook?token=hunter2-hunter2"),
    ("publish.notify", "publish=local", "https://hooks.slack.com/services/T0/B0/hunter2-hunter2"),
    ("data.path", "data=jsonl", "https://host/rows.jsonl?X-Amz-Signature=hunter2-hunter2"),
    ("data.path", "data=jsonl", "ftp://user:hunter2-hunter2@host/rows.jsonl"),
    ("data.task_settings.api_key", "data=syllogism", "hunter2-hunter2"),
    ("data.system_prompt", "data=syllogism", "AKIAHUNTER2HUNTER2HU"),
    ("data.system_prompt", "data=syllogism", "key ghp_hunter2hunter2hunter2hunter2hunter2"),
    ("data.system_prompt", "data=syllogism", "-----BEGIN EC PRIVATE KEY----- hunter2"),
]


WAYS = ("one job", "a sweep", "a file")


@pytest.mark.parametrize(("turn", "secret"), enumerate(WRITTEN_OUT))
def test_a_secret_that_is_written_out_is_refused_and_told_to_nobody(train, tmp_path, turn, secret):
    (key, option, value), how = secret, WAYS[turn % len(WAYS)]
    words = [option, f"++{key}='{value}'"]
    if how == "a sweep":
        words = ["-m", "method.adapter.rank=4,8", *words]
    if how == "a file":
        (tmp_path / "mine" / "experiment").mkdir(parents=True)
        text = f"# @package _global_\n{key.split('.')[0]}:\n"
        *middle, last = key.split(".")[1:]
        text += "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(middle, 1))
        text += f"{'  ' * (len(middle) + 1)}{last}: {json.dumps(value)}\n"
        (tmp_path / "mine" / "experiment" / "own.yaml").write_text(text)
        words = ["--config-dir", str(tmp_path / "mine"), option, "experiment=own"]
    call = train(*words)
    assert (call.code, call.jobs, call.written) == (2, [], []), call.err
    assert f"{key}: holds a" in call.err
    assert "${oc.env:NAME}" in call.err
    assert not any(word in call.out + call.err for word in ("hunter2", "HUNTER2"))


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("publish=git_lfs", "publish.registry=ssh://git@host/models.git"),
        ("publish=git_lfs", "publish.registry=git@host:models.git"),
        ("publish=local", "publish.notify='https://host/hook?job=a'"),
        ("publish=mlflow", "publish.registry=https://${oc.env:FOUNDRY_SECRET}@host"),
        ("data=syllogism", "data.system_prompt='What does user:name@host mean? Is a password secret?'"),
    ],
)
@pytest.mark.usefixtures("secret")
def test_what_is_no_secret_is_taken(train, option, setting):
    assert one(train(option, setting)) is not None


@pytest.mark.slow
def test_a_sweep_leaves_no_secret_and_no_copy_of_the_command_line(tmp_path):
    small = ["model=tiny", "data.size=32", "data.eval_size=8", "method.max_steps=1", "method.max_length=64"]
    small += ["publish=none", "examine=none", "prune=none", "data.system_prompt=${oc.env:FOUNDRY_SECRET}"]
    with Job(tmp_path, "train", "-m", "method.adapter.rank=2,4", *small, FOUNDRY_SECRET="hunter2-hunter2") as job:
        assert job.wait() == 0, job.err
    assert len(list(tmp_path.glob("multirun/train/*/*/manifest.yaml"))) == 2
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if b"hunter2" in path.read_bytes()] == []
    assert not [path for path in written if path.name in {"multirun.yaml", "hydra.yaml", "overrides.yaml"}]
    assert "hunter2" not in job.out + job.err


@pytest.mark.slow
def test_a_whole_run_leaves_no_secret_behind(tmp_path):
    small = ["model=tiny", "data.size=48", "data.eval_size=24", "method.max_steps=1", "prune=none"]
    small += ["examine.metrics.logic_score.max_new_tokens=2", "examine.gates.logic_score.min_gain=null"]
    small += ["publish.notify=${oc.env:HOOK}", "publish.tag=v1"]
    variables = {
        "HOOK": "http://hunter2:hunter2@127.0.0.1:9/hunter2?token=hunter2",
        "FOUNDRY_NOTIFY_SECRET": "hunter2-notify",
        "FOUNDRY_SIGN_PASSWORD": "hunter2-sign",
        "AWS_SECRET_ACCESS_KEY": "hunter2-aws",
    }
    with Job(tmp_path, "train", *small, **variables) as job:
        assert job.wait() == 0, job.err
    (run,) = tmp_path.glob("outputs/train/*")
    assert "notify: ${oc.env:HOOK}" in (run / "manifest.yaml").read_text()
    assert (tmp_path / "outputs" / "registry" / "train" / "v1" / "release.json").is_file()
    assert json.loads((run / "release.json").read_text())["notice"].startswith("failed: ")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if b"hunter2" in path.read_bytes()] == []
    assert "hunter2" not in job.out + job.err


# Texts survive.


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8")) | st.text("\\'\"${}.[],: a\n"))
def test_any_text_survives_an_override(text):
    (override,) = parse([f"key={quoted(text)}"])
    assert override.value() == text


@pytest.mark.parametrize("value", [True, False, None, 3, -0.5, 1e-5])
def test_plain_values_survive_an_override(value):
    (override,) = parse([f"key={quoted(value)}"])
    assert override.value() == value
    assert type(override.value()) is type(value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8")) | st.text("\\${}.a:'\""))
def test_any_text_survives_a_record(text):
    node = OmegaConf.create(_escaped({"key": [text]}))
    assert OmegaConf.to_container(node, resolve=True)["key"] == [text] or text == "???"
