"""Writers that want one tag at once, and writers that are killed: readers never see half a release.

The counts are small here, so that the suite stays short; FOUNDRY_TRUST=full takes those that are promised: 100 races
and 50 kills for each kind of registry.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import FORK
from releases import HAS_LFS, KINDS, artefact, publisher
from storage import environment, s3_server

from foundry.errors import PublishError
from foundry.verify import verify

FULL = os.environ.get("FOUNDRY_TRUST") == "full"
RACES = 100 if FULL else 12
KILLS = 50 if FULL else 6
EVERY_KIND = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(kind == "git_lfs" and not HAS_LFS, reason="needs git-lfs"))
        for kind in KINDS
    ],
)


@pytest.fixture(scope="module")
def storage():
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(url).items():
            patch.setenv(name, value)
        from foundry.remote import s3_client

        s3_client().create_bucket(Bucket="shelf")
        yield environment(url)


@pytest.fixture
def place(tmp_path, storage, kind, monkeypatch):  # noqa: ARG001  # the server must be there
    """A registry, made and used once so that every contender finds it."""
    found = tmp_path / f"registry-{os.urandom(4).hex()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{found}.db")
    made = artefact(tmp_path / "first", seed=99)
    publisher(kind, found, tag="first").publish(tmp_path / "first", *made)
    return found


def _prepare(variables):
    import foundry.publish.registry

    os.environ.update(variables)
    foundry.publish.registry.PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)


def _contend(kind, place, run_dir, made, variables, barrier, outcomes, turns):
    _prepare(variables)
    for turn in range(turns):
        barrier.wait(240)
        try:
            done = publisher(kind, place, tag=f"t{turn}").publish(run_dir, *made)
            outcomes.put((turn, made[0].lot, done.fresh, ""))
        except PublishError as error:
            outcomes.put((turn, made[0].lot, error.exit_code, str(error)))


@EVERY_KIND
@pytest.mark.slow
def test_of_two_publishers_that_want_one_tag_exactly_one_gets_it(kind, place, tmp_path, storage):
    barrier, outcomes = FORK.Barrier(2), FORK.Queue()
    contenders = []
    for seed in (0, 1):
        run_dir = tmp_path / f"run{seed}"
        made = artefact(run_dir, seed=seed)
        words = (kind, place, run_dir, made, storage, barrier, outcomes, RACES)
        contenders.append(FORK.Process(target=_contend, args=words))
    for contender in contenders:
        contender.start()
    told = [outcomes.get(timeout=300) for _ in range(2 * RACES)]
    for contender in contenders:
        contender.join(30)
    for turn in range(RACES):
        results = {lot: (outcome, said) for at, lot, outcome, said in told if at == turn}
        assert sorted(str(outcome) for outcome, _ in results.values()) == ["6", "True"], results
        (winner,) = [lot for lot, (outcome, _) in results.items() if outcome is True]
        (line,) = [said for outcome, said in results.values() if outcome == 6]
        assert "choose another tag" in line
        assert publisher(kind, place, tag=f"t{turn}").released(f"t{turn}")["lot"] == winner
    assert_whole(kind, place, [f"t{turn}" for turn in range(0, RACES, 10)])


def assert_whole(kind, place, tags):
    """Every tag that a reader sees is a whole release."""
    for tag in tags:
        reader = publisher(kind, place, tag=tag)
        if reader.released(tag) is not None:
            assert not [found for found in verify(reader.place(tag), sources=False) if found.bad], tag


def _publish(kind, place, run_dir, made, variables, tag, ready):
    _prepare(variables)
    publisher(kind, place, tag=tag)
    ready.set()
    publisher(kind, place, tag=tag).publish(run_dir, *made)


@EVERY_KIND
@pytest.mark.slow
def test_a_publisher_that_is_killed_leaves_no_half_release_and_the_next_finishes(kind, place, tmp_path, storage):
    run_dir = tmp_path / "run"
    made = artefact(run_dir)

    def start(tag):
        ready = FORK.Event()
        process = FORK.Process(target=_publish, args=(kind, place, run_dir, made, storage, tag, ready))
        process.start()
        assert ready.wait(240)
        return process

    timed = start("timed")  # from here on it has imported what it needs
    began = time.monotonic()
    timed.join(60)
    whole = time.monotonic() - began
    dice, cut = random.Random(0), 0
    for turn in range(KILLS):
        tag = f"k{turn}"
        process = start(tag)
        time.sleep(dice.uniform(0, whole))
        process.kill()
        process.join()
        cut += process.exitcode == -signal.SIGKILL
        assert_whole(kind, place, [tag])
        finished = publisher(kind, place, tag=tag).publish(run_dir, *made)
        assert (finished.tag, finished.lot) == (tag, made[0].lot)
        assert publisher(kind, place, tag=tag).released(tag) is not None
        assert_whole(kind, place, [tag])
    assert cut > KILLS / 4, "too few were killed while they published"
    publisher(kind, place, tag="last").publish(run_dir, *made)  # git outlives the process that was killed for a moment
    assert not list(run_dir.glob(".outgoing-*"))
    assert not list(Path(place).glob("job/.incoming-*"))
