"""The folder registry: refusals, tags, races, what a release holds."""

import json
import multiprocessing
from pathlib import Path

import pytest

from foundry.errors import PublishError
from foundry.lot import digest_file
from foundry.publish.local import LocalRegistry
from foundry.publish.none import Unpublished
from foundry.records import BaseModel, Checkpoint, Measurement, Verdict

LOT = "a" * 64


def run_dir(tmp_path, name="run", weights=b"weights"):
    folder = tmp_path / name
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "adapter_model.safetensors").write_bytes(weights)
    for file in ("lot.json", "manifest.yaml", "verdict.json", "report.html"):
        (folder / file).write_text(f"{file} of {name}")
    (folder / "foundry.log").write_text("stays here")
    return folder


def checkpoint(folder, lot=LOT):
    base = BaseModel("base", folder, {}, "", 1)
    return Checkpoint(folder / "model", "adapter", base, {}, "", lot=lot)


def verdict(lot=LOT, *, passed=True, examined=True):
    return Verdict(passed, [Measurement("logic_score", 0.8, 0.5, 300)], "", lot, examined)


def publish(registry, folder, lot=LOT, tag="v1"):
    return LocalRegistry(registry=str(registry), name="job", tag=tag).publish(
        folder, checkpoint(folder, lot), verdict(lot)
    )


def test_a_release_holds_the_model_and_its_papers_and_lists_every_digest(tmp_path):
    release = publish(tmp_path / "registry", run_dir(tmp_path))
    place = tmp_path / "registry" / "job" / "v1"
    found = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    papers = {"lot.json", "manifest.yaml", "verdict.json", "report.html", "model/adapter_model.safetensors"}
    assert found == papers | {"release.json"}
    manifest = json.loads((place / "release.json").read_text())
    assert manifest["files"] == {name: digest_file(place / name) for name in papers}
    assert (manifest["lot"], manifest["tag"], manifest["trigger_deployment"]) == (LOT, "v1", False)
    assert (release.uri, release.tag, release.fresh) == (str(place), "v1", True)
    assert release.files == manifest["files"]


def test_the_default_tag_is_the_lot(tmp_path):
    assert publish(tmp_path / "r", run_dir(tmp_path), tag=None).tag == f"lot-{LOT[:12]}"


@pytest.mark.parametrize("bad", [verdict(passed=False), verdict(examined=False), verdict(lot="b" * 64)])
def test_without_a_passing_verdict_on_this_lot_nothing_is_published(tmp_path, bad):
    folder = run_dir(tmp_path)
    with pytest.raises(PublishError, match="nothing was published"):
        LocalRegistry(registry=str(tmp_path / "r"), name="job").publish(folder, checkpoint(folder), bad)
    assert not (tmp_path / "r").exists()


def test_a_tag_taken_by_another_lot_is_refused_and_left_as_it_was(tmp_path):
    publish(tmp_path / "r", run_dir(tmp_path))
    before = digest_file(tmp_path / "r" / "job" / "v1" / "release.json")
    with pytest.raises(PublishError, match=r"holds lot aaaaaaaaaaaa, this is bbbbbbbbbbbb"):
        publish(tmp_path / "r", run_dir(tmp_path, "other", b"other"), lot="b" * 64)
    assert digest_file(tmp_path / "r" / "job" / "v1" / "release.json") == before
    assert [p.name for p in (tmp_path / "r" / "job").iterdir()] == ["v1"]


def test_the_same_lot_under_the_same_tag_is_done_already(tmp_path):
    publish(tmp_path / "r", run_dir(tmp_path))
    assert publish(tmp_path / "r", run_dir(tmp_path, "again")).fresh is False


def test_what_a_killed_publisher_left_is_cleared(tmp_path):
    dead = multiprocessing.get_context("spawn").Process(target=print)
    dead.start()
    dead.join()
    left = tmp_path / "r" / "job" / f".incoming-{dead.pid}-00"
    (left / "model").mkdir(parents=True)
    publish(tmp_path / "r", run_dir(tmp_path))
    assert not left.exists()


def test_a_registry_that_is_a_file_is_a_publish_error(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(PublishError, match="nothing was published"):
        publish(tmp_path / "r", run_dir(tmp_path))


@pytest.mark.parametrize("tag", ["../v1", "a/b", ".hidden", ""])
def test_tags_cannot_leave_the_registry(tag):
    with pytest.raises(ValueError, match="tag"):
        LocalRegistry(registry="r", name="job", tag=tag)


def test_none_publishes_nowhere(tmp_path):
    folder = run_dir(tmp_path)
    assert Unpublished().publish(folder, checkpoint(folder), verdict()).tag == ""


def _race(registry, folder, lot, barrier, outcomes):
    barrier.wait()
    try:
        outcomes.put((lot, publish(registry, Path(folder), lot=lot).fresh))
    except PublishError:
        outcomes.put((lot, None))


def test_of_two_publishers_that_want_one_tag_exactly_one_gets_it(tmp_path):
    spawn = multiprocessing.get_context("fork")
    for turn in range(20):
        registry = tmp_path / f"r{turn}"
        barrier, outcomes = spawn.Barrier(2), spawn.Queue()
        contenders = [
            spawn.Process(
                target=_race, args=(registry, str(run_dir(tmp_path, f"{turn}{c}")), c * 64, barrier, outcomes)
            )
            for c in "ab"
        ]
        for contender in contenders:
            contender.start()
        got = dict(outcomes.get(timeout=30) for _ in contenders)
        for contender in contenders:
            contender.join()
        assert sorted(got.values(), key=str) == [None, True]
        (winner,) = [lot for lot, fresh in got.items() if fresh]
        assert json.loads((registry / "job" / "v1" / "release.json").read_text())["lot"] == winner


def test_a_registry_that_is_no_folder_is_refused():
    with pytest.raises(ValueError, match="expected a folder"):
        LocalRegistry(registry="s3://bucket/prefix", name="job")
