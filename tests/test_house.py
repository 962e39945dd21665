"""The rules of the house, held by looking at the source."""

import ast
from pathlib import Path

import pytest

from foundry.config import CONF, TARGET

HOUSE = Path(__file__).parent.parent / "foundry"
FILES = sorted(HOUSE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
ENTRIES = {"train", "curate", "merge"}
ROOMS = {path.parent.name for path in HOUSE.glob("*/__init__.py")}
VAGUE = {"utils", "helpers", "common", "misc", "util", "helper"}
RESOLVERS = {
    "instantiate",
    "import_module",
    "__import__",
    "locate",
    "get_class",
    "get_object",
    "get_method",
    "eval",
    "exec",
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOUSE).as_posix())


def imported(tree):
    """The foundry modules that a file imports, late ones included, such as `method.sft`."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert node.level == 0, "imports name the whole module"
        yield from (name.removeprefix("foundry.") for name in names if name.startswith("foundry."))


def room_of(path):
    return path.relative_to(HOUSE).parts[0]


@each_file
def test_only_entries_join_rooms(path):
    rooms = {name.split(".")[0] for name in imported(TREES[path])} & ROOMS
    if path.parent != HOUSE:
        assert rooms <= {room_of(path)}, "a room imports the foundation and itself"
    elif path.stem not in ENTRIES:
        assert rooms == set(), "a foundation module imports no room"


@each_file
def test_rooms_know_no_entry(path):
    if path.parent != HOUSE:
        assert {name.split(".")[0] for name in imported(TREES[path])} & ENTRIES == set()


@each_file
def test_only_config_turns_names_into_classes(path):
    if path.relative_to(HOUSE).as_posix() in {"config.py", "__init__.py"}:
        return
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call)
        and not (isinstance(node.func, ast.Attribute) and node.func.attr in {"eval", "exec"})
    }
    assert called & RESOLVERS == set()


@each_file
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


@each_file
def test_names_say_something(path):
    assert path.stem not in VAGUE


def test_the_config_mirrors_the_package():
    for folder in CONF.iterdir():
        if folder.is_dir() and folder.name not in {"hydra", "experiment"}:
            assert (HOUSE / folder.name / "__init__.py").is_file() or (HOUSE / f"{folder.name}.py").is_file(), folder
    for path in CONF.glob("*/*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{TARGET}:"):
                assert line.split()[1].startswith(f"foundry.{path.parent.name}."), path
