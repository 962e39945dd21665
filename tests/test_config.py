"""Building components from configs: only foundry's own, fully checked; and every YAML file that ships."""

import json
import os
import re
from abc import ABC, abstractmethod
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import Field

from foundry import compose, config
from foundry.app import check_ahead
from foundry.composer import Composer, checking
from foundry.config import CONF, TARGET, Component, Settings, SettingsError, build, check_hydra, component, resolve
from foundry.data import Source
from foundry.errors import ConfigError
from foundry.merge import MergeManifest
from foundry.outcome import settings_of
from foundry.sweep import Optimize, Sweep
from foundry.train import TrainManifest

GOLDEN = Path(__file__).parent / "golden"
ENTRIES = ("train", "curate", "merge")
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in {"hydra", "experiment"})
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


class Shape(Component, ABC):
    """Has an area."""

    @abstractmethod
    def area(self) -> float:
        """In square metres."""


class Square(Shape):
    """A square."""

    side: float = Field(1.0, gt=0)

    def area(self) -> float:
        return self.side**2


class Frame(Settings):
    """Around something."""

    shape: Shape
    width: int = 1


class Wall(Settings):
    """Holds frames."""

    main: Shape
    named: dict[str, Shape] = Field(default_factory=dict)
    frames: tuple[Frame, ...] = ()
    spare: Shape | None = None
    label: str | int = ""
    free: dict[str, object] = Field(default_factory=dict)


SQUARE = {TARGET: f"{__name__}.Square"}


@pytest.fixture
def plugin(monkeypatch):
    """Makes this very module an installed plug-in."""
    points = [EntryPoint("test", __name__, "foundry.components")]
    monkeypatch.setattr(config, "entry_points", lambda group: points if group == "foundry.components" else [])


@pytest.mark.usefixtures("plugin")
def test_components_are_built_wherever_their_kind_belongs():
    wall = build(
        Wall,
        {
            "main": SQUARE | {"side": 2},
            "named": {"a": SQUARE, "b": SQUARE | {"side": 3.0}},
            "frames": [{"shape": SQUARE, "width": 4}],
            "spare": SQUARE,
            "free": {"list": [1, {"a": 2}]},
        },
    )
    assert [wall.main.area(), wall.named["b"].area(), wall.frames[0].shape.area(), wall.spare.area()] == [4, 9, 1, 1]
    assert wall.frames[0].width == 4
    with pytest.raises(Exception, match="frozen"):
        wall.main.side = 3.0


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"free": {"x": SQUARE}}, "free.x._target_: found '.*Square', but no component belongs here"),
        ({"free": {"x": [SQUARE]}}, "free.x.0._target_: .*no component belongs here"),
        ({"free": SQUARE}, "free._target_: .*no component belongs here"),
        ({"label": SQUARE}, "label._target_: .*no component belongs here"),
        ({"nope": SQUARE}, "nope: unknown key"),
        ({"named": SQUARE}, "named._target_: .*no component belongs here"),
        ({"named": {"a": {"side": 2.0}}}, "named.a._target_: required"),
        ({"main": {"side": 2.0}}, "main._target_: required, but not given; name a class under"),
        ({"main": {TARGET: f"{__name__}.Shape"}}, "main._target_: found '.*Shape', which is abstract"),
        ({"main": {TARGET: f"{__name__}.Frame"}}, "main._target_: found '.*Frame', which is none"),
        ({"main": {TARGET: "foundry.prune.exact.Exact"}}, "main._target_: found '.*Exact', which is none"),
        ({"main": SQUARE | {"sid": 2.0}}, "main.sid: unknown key; did you mean 'side'.*allowed here: side"),
        ({"main": SQUARE | {"side": "2"}}, "main.side: found '2', expected a number"),
        ({"main": SQUARE | {"side": 0}}, "main.side: found 0, expected more than 0"),
        ({"frames": [{"shape": SQUARE}, {"shape": SQUARE, "width": 1.5}]}, "frames.1.width: found 1.5"),
        ({"frames": [{"width": 1}]}, "frames.0.shape: required"),
        ({"frames": 3}, "frames: found 3, expected a list"),
        ({"label": 1.5}, "label: found 1.5, expected text or a whole number"),
        ({"spare": 3}, "spare: found 3, expected a mapping"),
        ({1: 2}, "1: unknown key"),
    ],
)
def test_wrong_settings_are_told_with_their_full_key(wrong, says):
    with pytest.raises(SettingsError, match=f"^{says}"):
        build(Wall, {"main": SQUARE} | wrong)


@pytest.mark.usefixtures("plugin")
def test_keys_begin_where_the_config_stands():
    with pytest.raises(SettingsError, match=r"^room\.wall\.main\.side: found 0"):
        build(Wall, {"main": SQUARE | {"side": 0}}, "room.wall")


@pytest.mark.usefixtures("plugin")
def test_a_models_own_mistakes_come_before_those_below_it():
    with pytest.raises(SettingsError) as caught:
        build(Wall, {"named": {"a": 3}, "main": SQUARE | {"side": 0}, "labl": 1})
    assert [line.partition(":")[0] for line in caught.value.problems] == ["named.a", "labl", "main.side"]


def test_values_are_cut_in_messages():
    with pytest.raises(SettingsError) as caught:
        build(Frame, {"shape": "x" * 1000})
    assert len(str(caught.value)) < 200


TARGETS = """
builtins.open builtins.eval builtins.exec builtins.__import__ os.system os.popen os.execv posix.system
subprocess.run subprocess.Popen subprocess.check_output shutil.rmtree shutil.copy functools.partial
importlib.import_module runpy.run_path pickle.loads pickle.load marshal.loads ctypes.CDLL
urllib.request.urlopen socket.socket tempfile.mkstemp pathlib.Path webbrowser.open code.interact pty.spawn
timeit.timeit hydra.utils.instantiate hydra.utils.call hydra.utils.get_object omegaconf.OmegaConf.load
torch.load joblib.load pandas.read_pickle yaml.unsafe_load trap.Trap foundryx.Trap foundry_trap.Trap
foundry.lot.subprocess.run foundry.config.import_module foundry.run.os.system
foundry.publish.local.shutil.rmtree foundry.run.write_atomic foundry.app.main foundry.train.main
foundry.train.train foundry.train.TrainManifest foundry.compose foundry.config.pydantic.BaseModel
foundry.config.Settings foundry.config.Component foundry.source.Source foundry.prune.exact.Exact
foundry.compute.Compute foundry.method.adapter.Adapter foundry.__main__.main foundry.verify.report
foundry.loading.load_model foundry.__builtins__ foundry.data.files.__builtins__.eval foundry.lot.json.loads
foundry foundry. .foundry.data foundry..lot foundry.lot. Foundry.data.Source foundry/data/Source
foundry.data.reasoning_gym.ReasoningGym.load foundry.data.reasoning_gym.ReasoningGym()
foundry.data.reasoning_gym foundry.data.nope.Nope __main__.x 3 null true [os.system]
os.spawnl os.remove os.environ.get os.fork posix.fork nt.system posixpath.os.system signal.raise_signal
subprocess.call subprocess.getoutput subprocess.os.system asyncio.create_subprocess_shell
multiprocessing.Process multiprocessing.util.os.system concurrent.futures.ProcessPoolExecutor
platform.os.system platform.subprocess.run tarfile.open zipfile.ZipFile shelve.open dbm.open sqlite3.connect
functools.reduce functools.partialmethod operator.methodcaller operator.attrgetter itertools.starmap
types.FunctionType types.CodeType builtins.compile builtins.getattr builtins.globals builtins.breakpoint
importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader pkgutil.resolve_name runpy.run_module
pickle.Unpickler pickle.load copyreg.__reduce_ex__ dill.load cloudpickle.load numpy.load numpy.lib.npyio.load
torch.hub.load torch.jit.load torch.package.PackageImporter torch.serialization.load torch.utils.cpp_extension.load
transformers.pipeline transformers.AutoModel.from_pretrained peft.PeftModel.from_pretrained datasets.load_dataset
huggingface_hub.snapshot_download mlflow.pyfunc.load_model mlflow.artifacts.download_artifacts safetensors.torch.load
pandas.read_sql pandas.read_html pandas.eval pyarrow.fs.FileSystem.from_uri fsspec.open fsspec.core.url_to_fs
urllib.request.urlretrieve http.client.HTTPConnection ftplib.FTP smtplib.SMTP telnetlib.Telnet xmlrpc.client.ServerProxy
requests.get httpx.get boto3.client botocore.session.get_session git.Repo.clone_from ray.init
logging.config.dictConfig logging.config.fileConfig logging.FileHandler logging.handlers.SocketHandler
yaml.load yaml.UnsafeLoader ruamel.yaml.YAML omegaconf.OmegaConf.register_new_resolver hydra.initialize hydra.main
hydra._internal.utils._locate hydra._internal.instantiate._instantiate2.instantiate hydra.core.plugins.Plugins
foundry.git.run foundry.git.clone foundry.signing.sign foundry.remote.s3_client foundry.remote.fetch_s3
foundry.publish.git_lfs.git.run foundry.publish.registry.shutil.rmtree foundry.publish.notice.announce
foundry.publish.registry.Registry foundry.publish.Publisher foundry.publish.bundle.os.link foundry.publish.s3.S3Registry
""".split()  # noqa: SIM905


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Importable modules that betray themselves by a file when they are imported."""
    for name in ("trap", "foundryx", "foundry_trap"):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/canary', 'w')\nclass Trap: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "canary"


@pytest.mark.parametrize("target", TARGETS)
def test_no_other_target_is_resolved(trap, target):
    value = OmegaConf.to_container(OmegaConf.from_dotlist([f"x={target}"]))["x"]
    with pytest.raises(ConfigError, match=r"^data\._target_: found .*expected a component class under foundry.data"):
        resolve(value, "data._target_", (Source,))
    assert not trap.exists()


PLACES = [
    ("data._target_", "data._target_=trap.Trap"),
    ("data._target_", "data._target_=${oc.decode:trap.Trap}"),
    ("data._target_", "data._target_=${publish.tag}", "publish.tag=trap.Trap"),
    ("data._target_", "data._target_=${oc.env:TRAP}"),
    ("data._target_", "data.task_settings=\"${oc.decode:'{_target_: trap.Trap}'}\"", "data._target_=trap.Trap"),
    ("data.task_settings._target_", "data.task_settings=\"${oc.decode:'{_target_: trap.Trap}'}\""),
    ("data.task_settings._target_", "+data.task_settings._target_=trap.Trap"),
    ("data.task_settings._target_", "+data.task_settings._target_=foundry.compute.Compute"),
    ("data.task_settings.x._target_", "+data.task_settings.x={_target_:trap.Trap}"),
    ("data.task_settings.x.0._target_", "+data.task_settings.x=[{_target_:trap.Trap}]"),
    ("data.task_settings.x.y.z._target_", "+data.task_settings.x.y.z._target_=trap.Trap"),
    ("data._partial_", "+data._partial_=true"),
    ("data._args_", "+data._args_=[trap.Trap]"),
    ("data._recursive_", "+data._recursive_=true"),
    ("data.seed._target_", "data.seed={_target_:trap.Trap}"),
    ("_target_", "+_target_=trap.Trap"),
    ("job_id._target_", "job_id={_target_:trap.Trap}"),
    ("resume: found {'_target_': 'trap.Trap'}, expected a path", "++resume={_target_:trap.Trap}"),
    ("method.adapter._target_", "+method.adapter._target_=trap.Trap"),
    ("method.adapter.targets.0._target_", "method.adapter.targets=[{_target_:trap.Trap}]"),
    ("examine.metrics.logic_score._target_", "examine.metrics.logic_score._target_=trap.Trap"),
    ("examine.metrics.x._target_", "+examine.metrics.x={_target_:trap.Trap}"),
    ("examine.metrics.x._target_", "+examine.metrics.x={_target_:foundry.examine.none.NoExam}"),
    ("examine.gates.x._target_", "+examine.gates.x={_target_:trap.Trap}"),
    ("extra", "+extra={_target_:trap.Trap}"),
    ("data._target_", "data._target_=functools.partial", "+data._args_=[trap.Trap]"),
    ("data._target_", "data._target_=hydra.utils.instantiate", "+data._convert_=all"),
    ("data._convert_", "+data._convert_=all"),
    ("data._mode_", "+data._mode_=call"),
    ("publish._target_", "publish._target_=trap.Trap"),
    ("publish._target_", "publish={_target_:trap.Trap}"),
    ("publish._args_", "+publish._args_=[{_target_:trap.Trap}]"),
    ("publish._partial_", "+publish._partial_=true"),
    ("publish.registry._target_", "publish.registry={_target_:trap.Trap}"),
    ("publish.notify._target_", "publish.notify={_target_:trap.Trap}"),
    ("publish.sign.0._target_", "publish.sign=[{_target_:trap.Trap}]"),
    ("model._target_", "model._target_=${publish.tag}", "publish.tag=trap.Trap"),
    ("method._target_", "+method._target_=functools.partial", "+method.func={_target_:trap.Trap}"),
    ("hydra.launcher._target_", "hydra.launcher._target_=trap.Trap"),
    ("hydra.sweeper._target_", "hydra.sweeper._target_=trap.Trap"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x._target_=trap.Trap"),
    ("hydra.callbacks.x._target_", "+hydra.callbacks.x={_target_:os.system,command:trap}"),
    ("hydra.job_logging", "+hydra.job_logging.handlers.x={class:trap.Trap}"),
    ("hydra.job_logging", "hydra/job_logging=default"),
    ("hydra.hydra_logging", "hydra/hydra_logging=default"),
    ("hydra.job_logging", "+hydra.job_logging.formatters=\"${oc.decode:'{x: {(): trap.Trap}}'}\""),
    ("data._target_", "-m", "data._target_=trap.Trap,os.system"),
    ("data._target_", "-m", "data._target_=foundry.data.reasoning_gym.ReasoningGym,trap.Trap"),
]


@pytest.mark.parametrize("hostile", PLACES, ids=lambda hostile: " ".join(hostile[1:]))
def test_no_place_in_a_job_builds_anything_else(train, trap, monkeypatch, hostile):
    monkeypatch.setenv("TRAP", "trap.Trap")
    key, *argv = hostile
    call = train(*argv)
    assert (call.code, call.err.count("\n"), call.written, call.jobs) == (2, 1, [], []), call.err
    assert f" {key}" in call.err
    assert "not a valid override" not in call.err
    assert not trap.exists()


class Alien(Source):
    """Lives in no allowed package."""

    def load(self):
        raise AssertionError


def test_the_resolved_classs_own_module_counts(monkeypatch):
    monkeypatch.setattr("foundry.data.Alien", Alien, raising=False)
    with pytest.raises(ConfigError, match=r"found 'foundry\.data\.Alien', which is none"):
        resolve("foundry.data.Alien", "data._target_", (Source,))


def test_a_plug_in_counts_once_it_is_registered(monkeypatch):
    name = f"{__name__}.Alien"
    with pytest.raises(ConfigError, match="expected a component class"):
        resolve(name, "data._target_", (Source,))
    monkeypatch.setattr(config, "entry_points", lambda group: [EntryPoint("test", __name__, group)])
    assert resolve(name, "data._target_", (Source,)) is Alien
    with pytest.raises(ConfigError, match="expected a component class"):
        resolve(f"{__name__}x.Alien", "data._target_", (Source,))


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path):
    (tmp_path / "needy.py").write_text("import no_such_library")
    (tmp_path / "older.py").write_text("from json import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "entry_points", lambda group: [EntryPoint("test", "needy", group)])
    with pytest.raises(ConfigError, match="needy needs no_such_library, which is not installed"):
        resolve("needy.x", "data._target_", (Source,))
    monkeypatch.setattr(config, "entry_points", lambda group: [EntryPoint("test", "older", group)])
    with pytest.raises(ConfigError, match="older cannot be imported: cannot import name 'no_such_name'"):
        resolve("older.x", "data._target_", (Source,))


def test_one_component_alone():
    assert component({TARGET: "foundry.compute.Compute", "batch_size": 3}, "compute").batch_size == 3
    with pytest.raises(ConfigError, match=r"compute._target_: required"):
        component({"batch_size": 3}, "compute")


def test_check_hydra_takes_hydras_own_defaults():
    with checking():
        cfg = Composer("train", str(CONF)).compose([])
    check_hydra(OmegaConf.to_container(cfg.hydra, resolve=False))


# Every YAML file that ships.


PARENTS = "[{path: a}, {path: b}]"
VALUES = {"data.name": "owner/rows", "data.revision": f"'{'0' * 40}'", "recipe.adapters": PARENTS}
PARTS = ["+data@data.parts.a=syllogism", "+data@data.parts.b=jsonl"]


def filled(*overrides, entry="train"):
    """The overrides, and a value for every setting that they leave to the user."""
    with checking():
        cfg = Composer(entry, str(CONF)).compose(overrides)
        missing = OmegaConf.missing_keys(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
    places = [re.sub(r"\[(\d+)\]", r".\1", key) for key in missing]
    return [*overrides, *(f"{key}={VALUES.get(key, 'x')}" for key in places)]


def beside(group, option):
    """What an option needs beside itself to make a job."""
    if group == "engine":
        return []
    if option == "passthrough":
        return ["recipe.adapters=[{path: a}]", "publish=none"]
    if option == "s3":
        return ["publish.registry=s3://bucket/students"]
    return ([] if group == "publish" else ["publish=none"]) + (PARTS if option == "mixture" else [])


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_option_builds_and_shows_all_its_settings(group, option):
    entry = {"engine": "curate", "recipe": "merge"}.get(group, "train")
    overrides = filled(f"{group}={option}", *beside(group, option), entry=entry)
    manifest = compose(overrides, entry)
    with checking():
        shown = OmegaConf.to_container(Composer(entry, str(CONF)).compose(overrides)[group], resolve=True)
    settings = settings_of(getattr(manifest, group))
    assert type(getattr(manifest, group)).__module__.split(".")[:2] == ["foundry", group]
    assert keys(settings) == keys(shown) | ({".adapters"} & keys(settings)), (
        "a setting that its YAML does not show cannot be overridden without a +"
    )


def keys(node, prefix=""):
    if not isinstance(node, dict):
        return {prefix}
    return {key for name, value in node.items() for key in keys(value, f"{prefix}.{name}")}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds_with_each_of_its_jobs(name):
    merges = "override /recipe:" in (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    entry, manifest = ("merge", MergeManifest) if merges else ("train", TrainManifest)
    overrides = filled(f"experiment={name}", entry=entry)
    with checking():
        check_ahead(manifest.from_config, Composer(entry, str(CONF)), overrides, multirun=False)


def test_every_yaml_file_is_looked_at():
    looked_at = {f"{group}/{option}" for group, option in OPTIONS} | {f"experiment/{name}" for name in EXPERIMENTS}
    there = {path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.y*ml")}
    assert {name for name in there - looked_at if not name.startswith("hydra/")} <= {*ENTRIES, "merge"}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_flattened_defaults_are_those_checked_in(entry):
    golden = GOLDEN / f"{entry}.txt"
    with checking():
        cfg = Composer(entry, str(CONF)).compose([])
    node = OmegaConf.to_container(cfg, resolve=False)
    text = "".join(f"{line}\n" for key, value in node.items() if key != "hydra" for line in lines(value, key))
    if os.environ.get("FOUNDRY_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    refresh = "if this is meant: FOUNDRY_GOLDEN=write pytest tests/test_config.py -k flattened"
    assert text == golden.read_text(encoding="utf-8"), refresh


def lines(node, key):
    if not isinstance(node, dict):
        return [f"{key}: {json.dumps(node, ensure_ascii=False)}"]
    return [line for name, value in node.items() for line in lines(value, f"{key}.{name}")]


# Settings and manifests are two forms of one thing.

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(
    ["${job_id}", "\\${x}", "$", "???x"]
)
DRAWN = {
    ("job_id",): st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
    ("data", "system_prompt"): TEXT | st.none(),
    ("data", "task_settings"): st.dictionaries(
        st.text("ab", min_size=1), st.integers() | TEXT | st.lists(st.booleans()), max_size=3
    ),
    ("method", "adapter"): st.none()
    | st.fixed_dictionaries({"rank": st.integers(1, 4096), "dropout": st.floats(0, 0.99)}),
    ("method", "learning_rate"): st.floats(1e-12, 1),
    ("compute", "seed"): st.integers(0, 2**32 - 1),
    ("publish", "registry"): TEXT,
}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.fixed_dictionaries({}, optional=DRAWN))
def test_settings_build_the_manifest_that_they_were_taken_from(drawn):
    plain = settings_of(compose_once())
    for place, value in drawn.items():
        *parents, last = place
        node = plain
        for parent in parents:
            node = node[parent]
        node[last] = value
    manifest = build(TrainManifest, plain)
    assert build(TrainManifest, settings_of(manifest)) == manifest
    read = OmegaConf.to_container(OmegaConf.create(manifest.record()), resolve=True)
    assert build(TrainManifest, read) == manifest.model_copy(update={"sweep": Sweep(), "optimize": Optimize()})


def compose_once(found=[]):  # noqa: B006  # composing a hundred times is slow
    if not found:
        found.append(compose())
    return found[0]
