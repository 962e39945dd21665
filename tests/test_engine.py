"""Engines: the same results in the same order, here and on two Ray workers; failures told as what they are."""

import io
import json
import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from foundry.data.files import Files
from foundry.engine import Engine, Local, Ray, spread, using
from foundry.errors import ConfigError, DataError, HardwareError


def square(number):
    return number * number, os.getpid()


def refuse(number):
    if number == 2:
        raise DataError(f"row {number} is bad")
    return number


def stumble(number):
    return number / 0


def end(_):
    os._exit(3)


class Backwards(Engine):
    """Goes through the parts from the last to the first, to show whose results come back."""

    def map(self, function, parts):
        return iter([function(part) for part in reversed(parts)][::-1])


def test_work_is_done_here_unless_another_engine_is_in_use():
    assert list(spread(square, [1, 2, 3])) == [(1, os.getpid()), (4, os.getpid()), (9, os.getpid())]
    seen = []
    with using(Backwards()):
        assert list(spread(lambda part: seen.append(part) or part, [1, 2, 3])) == [1, 2, 3]
    assert seen == [3, 2, 1]
    list(spread(seen.append, [4, 5]))
    assert seen == [3, 2, 1, 4, 5]


def test_here_a_part_is_done_when_its_result_is_asked_for():
    seen = []
    results = Local().map(seen.append, [1, 2, 3])
    assert seen == []
    next(results)
    assert seen == [1]


def test_files_that_are_read_one_by_one_make_the_same_dataset(tmp_path):
    for number in range(4):
        lines = [json.dumps({"text": f"row {number} {i}"}) for i in range(30)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join([*lines, "{", *lines[:3]]))
    whole = Files(path=str(tmp_path), max_bad_fraction=0.1).load()
    with using(Backwards()):
        other = Files(path=str(tmp_path), max_bad_fraction=0.1).load()
    assert list(whole.train) == list(other.train)
    assert (whole.sha256, whole.notes, whole.quarantined) == (other.sha256, other.notes, other.quarantined)
    assert [bad.line for bad in whole.quarantined] == [31, 31, 31, 31]


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'model-foundry\[ray\]'"):
        list(Ray().map(square, [1]))


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    there = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # so that workers can import this module
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=there)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_ray_gives_results_in_the_order_of_the_parts():
    results = list(Ray().map(square, range(12)))
    assert [number for number, _ in results] == [number * number for number in range(12)]
    assert os.getpid() not in {pid for _, pid in results}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_failures_on_ray_are_told_as_what_they_are():
    with pytest.raises(DataError, match=r"^row 2 is bad$"):
        list(Ray().map(refuse, range(4)))
    with pytest.raises(Exception, match="ZeroDivisionError") as bug:
        list(Ray().map(stumble, range(2)))
    assert not isinstance(bug.value, HardwareError)
    with pytest.raises(HardwareError, match=r"engine=ray: .*worker died"):
        list(Ray().map(end, range(2)))


@pytest.mark.slow
def test_no_cluster_is_a_hardware_error(monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed").shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(HardwareError, match="engine=ray"):
        list(Ray(address="auto").map(square, [1]))


@pytest.mark.slow
def test_two_ray_workers_write_the_shards_that_one_process_writes(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from foundry.__main__ import main

    (tmp_path / "rows").mkdir()
    for number in range(5):
        rows = [{"prompt": f"Question {i % 170}?", "completion": f"Answer {i % 170}."} for i in range(number, 900, 5)]
        lines = [json.dumps(row) for row in rows]
        (tmp_path / "rows" / f"{number}.jsonl").write_text("\n".join([lines[0], "not JSON", *lines[1:]]))
    said = {}
    for engine in ("local", "ray"):
        monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / f"{engine}-cache"))  # each embeds for itself
        words = ["curate", "data.path=rows", f"out={engine}", f"engine={engine}", "prune=semdedup"]
        words += ["engine.workers=2"] if engine == "ray" else []
        with chdir(tmp_path), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            assert main(words) == 0, err.getvalue()
        said[engine] = [line for line in out.getvalue().splitlines() if line.startswith(("data", "prune", " "))]
    one, two = tmp_path / "local", tmp_path / "ray"
    names = {path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file()}
    for name in names - {"lot.json", "manifest.yaml", "README.md"}:  # which name the engine, or its lot
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert said["local"] == said["ray"]
    assert (two / "removed.jsonl").stat().st_size > 0
    assert (two / "quarantine.jsonl").read_text().count("\n") == 5
