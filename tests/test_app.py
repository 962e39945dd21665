"""The command line: every mistake is one line on stderr and exit code 2, before anything is written or loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry import app
from foundry.errors import DataError, GateError, HardwareError, PublishError, TrainingError

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "trl", "peft", "mlflow", "datasets", "sentence_transformers", "reasoning_gym")


def refused(call, key, *says):
    """Hold what every mistake has in common, and that its line speaks of these things."""
    assert call.code == 2, call.err
    assert call.err.startswith("foundry: configuration: ")
    assert call.err.count("\n") == 1
    assert call.written == []
    assert call.jobs == []
    assert key in call.err
    for text in says:
        assert text in call.err
    for jargon in ("pydantic", "OmegaConf", "Input should", "Traceback", " struct", "dictionary", "NoneType", "tuple"):
        assert jargon not in call.err


MISTAKES = [
    # unknown keys
    ("metod=lora", "metod: unknown key", "did you mean 'method'?", "allowed here: compute, data"),
    ("method.learning_rat=1", "method.learning_rat: unknown key", "did you mean 'learning_rate'?", "save_steps"),
    ("+method.learning_rat=1", "method.learning_rat: unknown key", "did you mean 'learning_rate'?", "save_steps"),
    ("++method.learning_rat=1", "method.learning_rat: unknown key", "did you mean 'learning_rate'?"),
    ("method.adapter.rnk=8", "method.adapter.rnk: unknown key", "did you mean 'rank'?", "alpha, dora"),
    ("+method.adapter.rnk=8", "method.adapter.rnk: unknown key", "did you mean 'rank'?", "alpha, dora"),
    ("metod.adapter.rank=8", "metod: unknown key", "did you mean 'method'?"),
    ("+foo=1", "foo: unknown key", "allowed here: compute"),
    ("++foo.bar=1", "foo: unknown key", "allowed here: compute"),
    ("+data.1=2", "data.1: unknown key", "allowed here: eval_seed"),
    ("data.path=rows.jsonl", "data.path: no setting of the chosen data", "jsonl"),
    ("method=full method.adapter.rank=8", "method.adapter.rank: no setting of the chosen method", "lora"),
    ("examine.gates.logic_score.min_gian=0.1", "logic_score.min_gian: unknown key", "did you mean 'min_gain'?"),
    ("+examine.gates.logic_score.min_gian=0.1", "logic_score.min_gian: unknown key", "did you mean 'min_gain'?"),
    ("+examine.metrics.logic_score.batchsize=4", "logic_score.batchsize: unknown key", "did you mean 'batch_size'?"),
    ("data.task_settings.depth=4", "data.task_settings.depth: not there", "+data.task_settings.depth=… adds it"),
    ("job_id.x=1", "job_id.x: unknown key", "did you mean 'job_id'?"),
    ("method.adapter.rank.x=1", "method.adapter.rank.x: not there"),
    ("~data.sise", "data.sise: unknown key", "did you mean 'size'?"),
    ("hydra.job.nam=x", "hydra.job.nam: unknown key", "did you mean 'name'?"),
    ("+hydra.sweper.max_batch_size=1", "hydra.sweper: unknown key", "did you mean 'sweeper'?"),
    ("+hydra.run.dri=x", "hydra.run.dri: unknown key", "did you mean 'dir'?"),
    ("+defaults=[]", "defaults: unknown key"),
    # types
    ("method.adapter.rank=eight", "method.adapter.rank: found 'eight', expected a whole number"),
    ("method.adapter.rank=8.5", "method.adapter.rank: found 8.5, expected a whole number"),
    ("method.adapter.rank=", "method.adapter.rank: found '', expected a whole number"),
    ("method.adapter.rank=null", "method.adapter.rank: found null, expected a whole number"),
    ("compute.batch_size=true", "compute.batch_size: found true, expected a whole number"),
    ("compute.batch_size='8'", "compute.batch_size: found '8', expected a whole number"),
    ("method.strict_hardware_check=maybe", "method.strict_hardware_check: found 'maybe', expected true or false"),
    ("method.adapter=3", "method.adapter: found 3, expected a mapping"),
    ("method.adapter.targets=3", "method.adapter.targets: found 3, expected text or a list"),
    ("method.adapter.targets=[q,1]", "method.adapter.targets.1: found 1, expected text"),
    ("data.task_settings=3", "data.task_settings: found 3, expected a mapping"),
    ("+examine.metrics.x=1", "examine.metrics.x: found 1, expected a mapping"),
    ("+examine.metrics.x={batch_size:1}", "examine.metrics.x._target_: required", "foundry.examine"),
    ("job_id=12", "job_id: found 12, expected text", """job_id="'12'" is text"""),
    ("dry_run=3", "dry_run: found 3, expected true or false"),
    ("hydra.run=3", "hydra.run: found 3, expected a mapping"),
    ("hydra.run.dir=[1]", "hydra.run.dir: found [1], expected text"),
    ("hydra.job.num=x", "hydra.job.num: found x, expected a whole number"),
    ("hydra.mode=FOO", "hydra.mode", "'FOO'", "RUN, MULTIRUN"),
    # values
    ("method.adapter.rank=0", "method.adapter.rank: found 0, expected 1 or more"),
    ("method.adapter.rank=100000", "method.adapter.rank: found 100000, expected 4096 or less"),
    ("method.adapter.dropout=1.0", "method.adapter.dropout: found 1.0, expected less than 1"),
    ("method.learning_rate=-1", "method.learning_rate: found -1, expected more than 0"),
    ("method.learning_rate=nan", "method.learning_rate: found nan, expected a finite number"),
    ("method.max_steps=0", "method.max_steps: found 0, expected at least 1, or -1"),
    ("method.scheduler=cosin", "method.scheduler: found 'cosin'", "'linear'", "did you mean 'cosine'?"),
    ("compute.device=gpu", "compute.device: found 'gpu'", "'mps'", "did you mean 'cpu'?"),
    ("compute.precision=bf61", "compute.precision: found 'bf61'", "'fp32'", "did you mean 'bf16'?"),
    ("data.seed=5 data.eval_seed=6", "data: the seeds of training and held-out questions overlap"),
    ("job_id=../up", "job_id: found '../up', expected text that matches"),
    ("publish.name=a/b", "publish.name: found 'a/b', expected text that matches"),
    ("examine=none", "examine=none leaves nothing to publish on; set publish=none"),
    ("+examine.gates.nope.min=0.1", "gates.nope: there is no such metric", "logic_score"),
    # what is required
    ("data=jsonl", "data.path: required, but not given; set data.path=…"),
    ("data=reasoning_gym", "data.task: required, but not given; set data.task=…"),
    ("~data", "data: required, but not given"),
    ("~model.name", "model.name: required, but not given"),
    ("~data._target_", "data._target_: required", "foundry.data"),
    # groups
    (
        "method=lorra",
        "method=lorra: no such option",
        "did you mean 'lora'?",
        "dora, dpo, full, lora, none, orpo, qlora",
    ),
    ("experiment=nope", "experiment=nope: no such option"),
    ("experiment=null", "experiment: found null, expected an option"),
    ("data=null", "data: found null, expected an option", "syllogism"),
    ("data=3", "data: found 3, expected an option", "syllogism"),
    ("method=", "method=: no such option", "lora"),
    ("+method=dora", "method: chosen twice"),
    ("++method=dora", "method=dora: a group is chosen without a +"),
    ("data@x=jsonl", "data@x: unknown key", "did you mean 'data'?"),
    ("hydra/launcher=jobib", "hydra/launcher=jobib: no such option", "basic"),
    ("prune=exact,none", "prune: found several values, exact,none; -m sweeps", "prune=[exact,none]"),
    # the grammar of overrides and interpolations
    ("foo", "foo: not a valid override", "key=value"),
    ("=3", "=3: not a valid override"),
    ("method.adapter.targets=[q", "method.adapter.targets=[q: not a valid override"),
    ("data[0]=3", "data[0]=3: not a valid override"),
    ("+job_id=x", "job_id: is set already; write job_id=… without the +"),
    ("~job_id=other", "job_id", "other"),
    ("job_id=${nope}", "job_id: ${nope} names a key that is not there"),
    ("publish.tag=${oc.env:NO_SUCH_VARIABLE}", "publish.tag: the environment variable NO_SUCH_VARIABLE is not set"),
    ("publish.tag=${oc.nope:x}", "publish.tag: ${oc.nope:…} names a resolver that is not there"),
    ("publish.tag=${run_dir:a,b}", "publish.tag: ${run_dir:…} is for hydra.run.dir"),
    ("publish.tag=${data.task", "publish.tag=${data.task: not a valid override"),
    ("hydra.run.dir=${nope}", "hydra.run.dir: ${nope} names a key that is not there"),
    # flags
    ("--nope", "unrecognized arguments: --nope"),
    ("--cfg jobs", "invalid choice: 'jobs'", "'job', 'hydra', 'all'"),
    ("--resolve", "--resolve goes with --cfg or --help"),
    ("--run -m", "--run and --multirun exclude each other"),
    ("--cfg job --package nope", "--package: the config has no 'nope'"),
    ("--cfg job metod=lora", "metod: unknown key", "did you mean 'method'?"),
    ("--help method=lorra", "method=lorra: no such option"),
    ("--config-name trian", "--config-name: there is no 'trian'", "did you mean 'train'?"),
    ("--config-dir nope", "--config-dir: there is no folder 'nope'"),
    ("--config-path nope", "--config-path: there is no folder"),
    ("--experimental-rerun x.pickle", "--experimental-rerun would load a pickle"),
    # Hydra's own settings
    ("hydra.job.chdir=true", "hydra.job.chdir: found true", "expected false"),
    ("hydra.job.env_copy=[HOME]", "hydra.job.env_copy", "to disk"),
    ("hydra.job.env_copy=[NO_SUCH_VARIABLE]", "hydra.job.env_copy: there is no environment variable"),
    ("hydra.searchpath=[nope]", "hydra.searchpath: found 'nope', expected a folder"),
    ("hydra.searchpath=nope", "hydra.searchpath: found 'nope', expected a list of folders"),
    ("+hydra.searchpath=[conf]", "hydra.searchpath: is set without a +"),
    ("hydra.launcher=joblib", "hydra.launcher: found 'joblib', expected a mapping"),
    # sweeps
    ("-m method=lora,lorra", "method=lorra: no such option", "did you mean 'lora'?"),
    ("-m method.adapter.rank=4,8,0", "method.adapter.rank: found 0, expected 1 or more"),
    ("-m method.adapter.rank=4,8 method.lerning_rate=1", "method.lerning_rate: unknown key", "'learning_rate'"),
    ("-m method.adapter.rank=range(0,3)", "method.adapter.rank: found 0, expected 1 or more"),
    ("-m method.learning_rate=interval(0.1,7)", "method.learning_rate: found 7.0, expected 1 or less"),
    ("-m method=glob(zzz*)", "method: glob(zzz*) gives no value"),
    ("-m hydra.job.name=a,b", "hydra.job.name: cannot be swept"),
    ("-m hydra/job_logging=none,default", "hydra/job_logging: cannot be swept"),
    ("-m manifest=a.yaml,b.yaml", "manifest: cannot be swept"),
    ("-m resume=a,b", "resume: cannot be swept"),
    ("-m hydra.sweeper.max_batch_size=0 compute.seed=0,1", "hydra.sweeper.max_batch_size: found 0"),
    ("-m hydra.sweep.subdir=${nope} compute.seed=0,1", "hydra.sweep.subdir: ${nope} names a key that is not there"),
    ("-m +hydra.sweeper.params.x=1", "hydra.sweeper.params: is for files"),
    ("hydra.mode=MULTIRUN compute.seed=0,-1", "compute.seed: found -1, expected 0 or more"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_is_one_line_and_nothing_is_written(train, mistake):
    refused(train(*mistake[0].split(" ")), *mistake[1:])


FILES = {
    "syntax": ("a: [1\nb: 2", "syntax.yaml:2:2: YAML syntax error"),
    "tab": ("a:\n\t- b", "tab.yaml:2:1: YAML syntax error"),
    "twice": ("job_id: a\njob_id: b", "twice.yaml:2:1: YAML syntax error: found duplicate key job_id"),
    "python": ("a: !!python/object/apply:os.system [touch canary]", "python.yaml:1:4: YAML syntax error"),
    "endless": ("a: &a [*a]", "refers to itself without end"),
    "interpolation": ("# @package _global_\njob_id: ${", "job_id: not a valid interpolation"),
    "unpackaged": ("job_id: x", "experiment: the chosen file lacks its first line, `# @package _global_`"),
    "key": ("# @package _global_\nmethod: {adapter: {rnk: 8}}", "method.adapter.rnk: unknown key", "'rank'"),
    "value": ("# @package _global_\nmethod: {adapter: {rank: 0}}", "method.adapter.rank: found 0, expected 1 or more"),
    "kind": ("# @package _global_\nmethod: 3", "method: found 3, expected a mapping"),
    "hydras": ("# @package _global_\nhydra: {run: 3}", "experiment/hydras.yaml: found 3, expected a mapping"),
    "option": ("# @package _global_\ndefaults:\n  - override /method: lorra", "method=lorra: no such option", "'lora'"),
    "group": ("# @package _global_\ndefaults:\n  - override /metod: lora", "metod: unknown key", "'method'"),
    "conflict": ("# @package _global_\ndefaults:\n  - /method: dora", "method: chosen twice", "override /method"),
    "list": ("# @package _global_\ndefaults: 3", "defaults must be a list"),
    "searchpath": ("# @package _global_\nhydra: {searchpath: [x]}", "hydra.searchpath", "primary config"),
    "sweep": (
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {method.adapter.rank: '8,0'}",
        "method.adapter.rank: found 0, expected 1 or more",
    ),
    "hydra_sweep": (
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {+hydra.job_logging.x: '8,0'}",
        "hydra.job_logging.x: cannot be swept",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_of_the_users(train, tmp_path, name):
    text, *says = FILES[name]
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / f"{name}.yaml").write_text(text)
    refused(train("--config-dir", "mine", f"experiment={name}"), *says)


def test_files_that_hydra_would_not_read_are_refused(train, tmp_path):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "lora.yaml").write_text("adapter: {rank: 3}")
    refused(train("--config-dir", "mine"), "--config-dir: mine/method/lora.yaml would not be read", "another name")


def test_bytes_that_are_no_text(train, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    refused(train("--config-dir", "mine", "experiment=bytes"), "not UTF-8")


def test_all_mistakes_are_told_at_once(train):
    call = train("method.adapter.rank=0", "method.scheduler=cosin", "compute.seed=-1")
    refused(
        call, "method.adapter.rank: found 0", "and 2 more", "method.scheduler: found 'cosin'", "compute.seed: found -1"
    )


def test_a_users_own_folder_adds_options_and_primary_configs(train, tmp_path):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "wide.yaml").write_text("defaults: [lora, _self_]\nadapter: {rank: 99}")
    (tmp_path / "mine" / "own.yaml").write_text("defaults: [train, _self_]\njob_id: own")
    call = train("--config-dir", "mine", "--config-name", "own", "method=wide")
    assert (call.code, call.jobs[0].method.adapter.rank, call.jobs[0].job_id) == (0, 99, "own")
    call = train(f"hydra.searchpath=[file://{tmp_path}/mine]", "method=wide")
    assert (call.code, call.jobs[0].method.adapter.rank) == (0, 99)


def test_another_config_path_is_what_is_checked_and_what_is_run(train, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.yaml").write_text("hydra:\n  callbacks: {x: {_target_: os.system}}")
    refused(train("--config-path", "other"), "hydra.callbacks.x._target_: found 'os.system'")


CALLBACK = "hydra.experimental.callbacks.LogJobReturnCallback"
# What Hydra itself would build, call or set: nothing but its own plug-ins, and none of it from a sweep.
HYDRAS = [
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:os.system,command:'touch canary'}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:builtins.open,file:canary,mode:w}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:trap.Trap}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:foundry.lot.subprocess.run,args:[touch,canary]}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:foundry.publish.local.shutil.rmtree,path:.}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:foundry.run.write_atomic,path:canary,text:x}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:foundry.train.TrainManifest}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:foundry.prune.exact.Exact}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:functools.partial,_args_:[os.system]}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:hydra.utils.call}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:hydra._internal.core_plugins.basic_sweeper.Path}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:hydra.experimental.callbacks.pickle.load}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:[os.system]}"),
    ("hydra.callbacks.x.y._target_", f"+hydra.callbacks.x={{_target_:{CALLBACK},y:{{_target_:builtins.open}}}}"),
    ("hydra.callbacks.x.y.0._target_", f"+hydra.callbacks.x={{_target_:{CALLBACK},y:[{{_target_:builtins.open}}]}}"),
    ("hydra.callbacks.x.y", f"+hydra.callbacks.x={{_target_:{CALLBACK},y:'${{data}}'}}"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x._target_=${oc.env:HOME}"),
    ("hydra.callbacks.x", "+hydra.callbacks.x=${data}"),
    ("hydra.callbacks.x", "+hydra.callbacks.x=\"${oc.decode:'{_target_: builtins.open}'}\""),
    ("hydra.callbacks", "hydra.callbacks=\"${oc.decode:'{x: {_target_: builtins.open}}'}\""),
    ("hydra.callbacks.x", "+hydra.callbacks.x=${oc.select:data}"),
    ("hydra.callbacks.x", "+hydra.callbacks.x=3"),
    ("hydra.callbacks.x._target_", "+data@hydra.callbacks.x=syllogism"),
    ("hydra.launcher._target_", "hydra.launcher._target_=os.system"),
    ("hydra.launcher._target_", "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.Path"),
    ("hydra.launcher.x._target_", "+hydra.launcher.x={_target_:os.system}"),
    ("hydra.launcher.x", "+hydra.launcher.x=${data}"),
    ("hydra.launcher._target_", "-m", "hydra.launcher._target_=subprocess.run", "compute.seed=0,1"),
    ("hydra.sweeper._target_", "hydra.sweeper._target_=os.system"),
    ("hydra.sweeper._target_", "-m", "hydra.sweeper._target_=foundry.lot.subprocess.run", "compute.seed=0,1"),
    ("hydra.callbacks.x._target_", "-m", "++hydra.callbacks.x._target_=os.system,builtins.open"),
    ("hydra.launcher._target_", "-m", "hydra.launcher._target_=os.system,builtins.open"),
    ("hydra.callbacks.x._target_", "-m", "+data@hydra.callbacks.x=jsonl,syllogism"),
    ("hydra.job_logging", "hydra/job_logging=default"),
    ("hydra.hydra_logging", "hydra/hydra_logging=default"),
    ("hydra.job_logging.root", "hydra.job_logging.root={handlers:[x]}"),
    ("hydra.job_logging.handlers", "+hydra.job_logging.handlers.x={class:logging.FileHandler,filename:canary}"),
    ("hydra.job_logging.handlers", "+hydra.job_logging.handlers.x={class:trap.Trap}"),
    ("hydra.job_logging.filters", "+hydra.job_logging.filters.x=ext://trap.Trap"),
    ("hydra.hydra_logging.formatters", "+hydra.hydra_logging.formatters.x={class:foundry.lot.subprocess.Popen}"),
    ("hydra.hydra_logging.handlers", "+hydra.hydra_logging.handlers.x={class:logging.FileHandler,filename:canary}"),
    ("hydra.job_logging", "hydra.job_logging=\"${oc.decode:'{version: 1, root: {}}'}\""),
    (
        "hydra.hydra_logging.handlers",
        "--help",
        "+hydra.hydra_logging.handlers.x={class:logging.FileHandler,filename:canary}",
    ),
    ("hydra.callbacks.x._target_", "--cfg", "job", "+hydra.callbacks.x={_target_:trap.Trap}"),
    ("hydra.searchpath", "hydra.searchpath=[pkg://trap]"),
    ("--config-path", "--config-path", "pkg://trap"),
    ("hydra.job.env_set.LD_PRELOAD", "+hydra.job.env_set.LD_PRELOAD=evil.so"),
    ("hydra.job.env_set.GIT_CONFIG_COUNT", "+hydra.job.env_set.GIT_CONFIG_COUNT=1"),
    ("hydra.job.env_set.PATH", "+hydra.job.env_set.PATH=."),
    ("hydra.job.env_set", "hydra.job.env_set=\"${oc.decode:'{PATH: .}'}\""),
    ("hydra.job.chdir", "hydra.job.chdir=${oc.decode:true}"),
]


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """An importable module `trap` that betrays itself by a file when it is imported."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "__init__.py").write_text("open('canary', 'w')\nclass Trap: ...\n")
    (tmp_path / "trap" / "train.yaml").write_text("job_id: trap")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("trap")
@pytest.mark.parametrize("hostile", HYDRAS, ids=lambda hostile: " ".join(hostile[1:]))
def test_hydra_builds_nothing_but_its_own_plugins(train, hostile):
    key, *argv = hostile
    call = train(*argv)
    refused(call, key)
    assert "not a valid override" not in call.err
    assert "trap" not in sys.modules


HOSTILE_FILES = {
    "hydra.job_logging.root": "hydra: {job_logging: {handlers: {x: {(): trap.Trap}}, root: {handlers: [x]}}}",
    "hydra.hydra_logging.filters": "hydra: {hydra_logging: {filters: {x: {(): trap.Trap}}}}",
    "hydra.callbacks.x._target_": "hydra: {callbacks: {x: {_target_: trap.Trap}}}",
    "hydra.callbacks.x": "hydra: {callbacks: {x: '${oc.create:${data}}'}}",
    "hydra.launcher._target_": "hydra: {launcher: {_target_: trap.Trap}}",
    "hydra.sweeper._target_": "hydra: {sweeper: {_target_: trap.Trap}}",
    "found {'_target_': 'trap.Trap'}": "hydra: {sweeper: {max_batch_size: {_target_: trap.Trap}}}",
    "hydra.job.env_set.BASH_ENV": "hydra: {job: {env_set: {BASH_ENV: evil.sh}}}",
    "hydra.searchpath": "hydra: {searchpath: ['pkg://trap']}",
    "data._target_": "data: {_target_: trap.Trap}",
    "examine.metrics.x._target_": "examine: {metrics: {x: {_target_: trap.Trap}}}",
    "data.task_settings.x._target_": "data: {task_settings: {x: {_target_: trap.Trap}}}",
    "YAML syntax error": "data: !!python/name:trap.Trap",
}


@pytest.mark.usefixtures("trap")
@pytest.mark.parametrize("primary", [False, True])
@pytest.mark.parametrize("key", HOSTILE_FILES)
def test_a_file_builds_nothing_either(train, tmp_path, key, primary):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{HOSTILE_FILES[key]}")
    (tmp_path / "mine" / "evil.yaml").write_text(f"defaults: [train, _self_]\n{HOSTILE_FILES[key]}")
    chosen = ["--config-name", "evil"] if primary else ["experiment=evil"]
    refused(train("--config-dir", "mine", *chosen), key)
    assert "trap" not in sys.modules


def test_hydras_own_callbacks_and_harmless_settings_work(train):
    callback = f"+hydra.callbacks.x={{_target_:{CALLBACK}}}"
    assert train(callback, "hydra.job.name=mine", "+hydra.job.env_set.OMP_NUM_THREADS=2").code == 0
    assert train("-m", "hydra.sweeper.max_batch_size=1", "compute.seed=0,1").code == 0


def test_an_experiment_may_sweep(train, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {method.adapter.rank: '8,16'}"
    (tmp_path / "mine" / "experiment" / "ranks.yaml").write_text(text)
    call = train("--config-dir", "mine", "experiment=ranks", "compute.seed=3,4")
    assert call.code == 0, call.err
    assert [(job.method.adapter.rank, job.compute.seed) for job in call.jobs] == [(8, 3), (8, 4), (16, 3), (16, 4)]


def test_a_large_sweep_is_refused_for_any_one_value(train, monkeypatch):
    monkeypatch.setattr("foundry.composer.SWEEP_CHECK_LIMIT", 3)
    refused(train("-m", "method.adapter.rank=4,8,0", "compute.seed=0,1"), "method.adapter.rank: found 0")
    refused(train("-m", "method.adapter.rank=4,8", "compute.seed=0,-1"), "compute.seed: found -1")
    assert len(train("-m", "method.adapter.rank=4,8", "compute.seed=0,1").jobs) == 4


def test_a_config_may_speak_of_the_run_it_is_in(train):
    assert train("job_id=with_${hydra:runtime.choices.method}").jobs[0].job_id == "with_lora"
    call = train("-m", "publish.tag=v${hydra:job.num}", "method=lora,dora")
    assert [job.publish.tag for job in call.jobs] == ["v0", "v1"]
    refused(
        train("-m", "job_id=x${hydra:job.num}", "method=lora,dora"), "hydra.sweep.dir", "not for the sweep as a whole"
    )


@pytest.mark.parametrize(
    "argv", ["--cfg job", "--cfg hydra", "--cfg all", "--cfg job --resolve", "--help", "--hydra-help"]
)
def test_what_only_shows_writes_nothing(train, argv):
    call = train(*argv.split())
    assert (call.code, call.err, call.written, call.jobs) == (0, "", [], [])
    assert "syllogism" in call.out or "hydra" in call.out


def test_resolving_hydras_own_node_makes_no_run_directory(train):
    call = train("--cfg", "all", "--resolve")
    assert call.written == []


def test_the_shells_completion_still_works(train):
    call = train("--shell-completion", "install=bash")
    assert (call.code, call.err) == (0, "")
    assert "complete" in call.out


def test_overrides_and_flags_come_in_any_order(train):
    assert [job.compute.seed for job in train("method=dora", "-m", "compute.seed=0,1").jobs] == [0, 1]


# In processes of their own.


def test_the_command_itself_refuses(cli, tmp_path):
    for argv, key in [
        (["train", "method.adapter.rnk=8"], "method.adapter.rnk: unknown key"),
        (["train", "data._target_=os.system"], "data._target_: found 'os.system'"),
        (["train", "-m", "method=lora,lorra"], "method=lorra: no such option"),
        (["tarin"], "there is no verb 'tarin'; did you mean 'train'?"),
    ]:
        done = cli(*argv)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert key in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_is_there_for_who_asks_for_it(cli):
    done = cli("train", "method.adapter.rnk=8", HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("foundry: configuration: method.adapter.rnk")


LIGHT = {
    "usage": "main(['--help'])",
    "help": "main(['train', '--help'])",
    "config": "main(['train', '--cfg', 'job'])",
    "unknown key": "main(['train', 'method.adapter.rnk=8'])",
    "bad value": "main(['train', 'method.adapter.rank=0'])",
    "hostile": "main(['train', 'data._target_=os.system'])",
    "sweep": "main(['train', '-m', 'method=lora,lorra'])",
    "schema": "main(['schema'])",
    "compose": "__import__('foundry').compose(['method=dora', 'model=tiny'])",
}


@pytest.mark.parametrize("name", LIGHT)
def test_nothing_heavy_is_imported(name):
    code = (
        f"import sys; from foundry.__main__ import main; {LIGHT[name]}; print([m for m in {HEAVY} if m in sys.modules])"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Exit codes.


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (HardwareError("too\nlittle"), 3, "hardware"),
        (DataError("too\nlittle"), 4, "data"),
        (GateError("too\nlittle"), 5, "gate"),
        (PublishError("too\nlittle"), 6, "publishing"),
        (TrainingError("too\nlittle"), 7, "training"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(capsys, error, code, kind):
    def work():
        raise error

    assert app.guarded(work) == code
    assert capsys.readouterr().err == f"foundry: {kind}: too little\n"


def test_other_ways_to_end(capsys):
    def raise_(error):
        raise error

    assert app.guarded(lambda: raise_(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err
    assert app.guarded(lambda: raise_(RuntimeError("ours"))) == 1
    assert "Traceback" in capsys.readouterr().err
    assert [app.guarded(lambda code=code: sys.exit(code)) for code in (None, 0, 3, "text")] == [0, 0, 3, 1]
    assert app.guarded(lambda: None) == 0


@pytest.mark.parametrize(("error", "code"), [(DataError("no rows"), 4), (ValueError("ours"), 1)])
def test_a_job_that_fails_says_so_once(tmp_path, monkeypatch, capsys, error, code):
    monkeypatch.chdir(tmp_path)

    def job(_cfg):
        raise error

    assert app.main(job, lambda *_: None, "train", []) == code
    err = capsys.readouterr().err
    assert err == "foundry: data: no rows\n" if code == 4 else "ValueError: ours" in err
    assert "HYDRA_FULL_ERROR" not in os.environ


# Whatever is typed, there is no traceback.

KEYS = [
    "job_id",
    "data",
    "data.size",
    "method",
    "method.adapter.rank",
    "method.adapter",
    "examine.gates",
    "compute.seed",
]
KEYS += ["publish.tag", "hydra.run.dir", "hydra.callbacks", "hydra/launcher", "data._target_", "experiment", "manifest"]
VALUES = [
    "1",
    "-1",
    "0.5",
    "null",
    "true",
    "lora",
    "''",
    "[1,2]",
    "{a:1}",
    "a,b",
    "${job_id}",
    "${oc.env:HOME}",
    "${",
    "???",
    "é",
]


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "", "+", "++", "~"]),
            st.sampled_from(KEYS),
            st.sampled_from(["", "", "x", ".x"]),
            st.sampled_from(VALUES),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_any_override_gives_a_job_or_one_line(train, overrides, multirun):
    argv = [f"{sign}{key}{tail}={value}" for sign, key, tail, value in overrides]
    call = train(*(["-m"] * multirun), *argv)
    assert call.code in {0, 2}, argv
    assert call.err.count("\n") == (call.code == 2), argv
    assert not (call.code and call.written), argv
