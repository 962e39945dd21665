"""foundry curate: the folder that it writes, whole or not at all, and what reads it back."""

import contextlib
import io
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import foundry as package
from foundry import lot, shards
from foundry.data.files import Files
from foundry.errors import ConfigError, DataError
from foundry.lot import canonical, digest_rows
from foundry.verify import verify


def foundry(folder, *words):
    """Run the command in this process, from `folder`."""
    from foundry.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def curate(folder, *words):
    """Curate without an embedder, unless the words say otherwise."""
    return foundry(folder, "curate", *words, *([] if any("manifest=" in word for word in words) else ["prune=exact"]))


def row(i, answer="It is so."):
    return {"prompt": f"Question {i}?", "completion": f"{answer} {i}"}


def write(path, rows):
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A curated set of 400 rows with 40 repeats and one bad line, in a folder of its own."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "rows.jsonl", [*map(row, range(400)), *map(row, range(40)), {"prompt": "no answer"}])
    code, out, err = curate(folder, "data.path=rows.jsonl", "out=sets/clean")
    assert code == 0, err
    return folder, folder / "sets" / "clean", out


def test_the_folder_holds_what_it_promises(made):
    _, out, said = made
    assert {path.name for path in out.iterdir()} == {
        "README.md", "eval", "lot.json", "manifest.yaml", "overlaps.json", "quarantine.jsonl", "removed.jsonl", "train",
    }  # fmt: skip
    (bad,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert (bad["source"], bad["line"]) == ("rows.jsonl", 441)
    removed = list(map(json.loads, (out / "removed.jsonl").read_text().splitlines()))
    lot_number = json.loads((out / "lot.json").read_text())["lot"]
    assert lot_number[:12] in said
    assert lot_number in (out / "README.md").read_text()
    assert f"| {len(removed)} | `removed.jsonl`" in (out / "README.md").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["clean"]


def test_the_shards_give_back_the_rows_and_the_dataset_s_digest(made):
    folder, out, _ = made
    source = Files(path=str(folder / "rows.jsonl")).load()
    contents = json.loads((out / "lot.json").read_text())["contents"]
    back = Files(path=str(out)).load()
    assert list(back.eval) == list(source.eval)
    assert set(map(canonical, back.train)) == set(map(canonical, source.train))
    assert (back.sha256, back.eval_sha256) == (contents["dataset"]["pruned"], source.eval_sha256)
    assert contents["dataset"]["train"] == source.sha256
    assert Files(path=str(out / "train"), eval_fraction=0.0).load().sha256 == back.sha256
    assert Files(path=str(out / "train" / "*.parquet"), eval_fraction=0.0).load().sha256 == back.sha256


def test_datasets_finds_both_splits(made, tmp_path):
    from datasets import load_dataset

    _, out, _ = made
    found = load_dataset(str(out), cache_dir=str(tmp_path))
    assert {split: digest_rows(rows) for split, rows in found.items()} == {
        "train": Files(path=str(out)).load().sha256,
        "eval": Files(path=str(out)).load().eval_sha256,
    }


def test_the_set_verifies_until_something_changes(made, tmp_path):
    folder, out, _ = made
    code, said, _ = foundry(folder, "verify", str(out))
    assert code == 0
    assert "rows" in said
    for number, name in enumerate(["train/00000.parquet", "eval/00000.parquet", "README.md", "manifest.yaml"]):
        copy = tmp_path / str(number)
        shutil.copytree(out, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert name in {finding.name for finding in verify(copy, sources=False) if finding.bad}
    (copy / "train" / "more.parquet").write_bytes(b"")
    assert "train/more.parquet" in {finding.name for finding in verify(copy) if finding.bad}


def test_a_shard_that_is_not_the_lot_s_is_not_learnt_from(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "set")
    shutil.copy(made[1] / "eval" / "00000.parquet", tmp_path / "set" / "train" / "00000.parquet")
    with pytest.raises(DataError, match=r"train/00000\.parquet differs from its lot\.json"):
        Files(path=str(tmp_path / "set")).load()
    (tmp_path / "set" / "train" / "00000.parquet").unlink()
    with pytest.raises(DataError, match=r"train/00000\.parquet: no such file"):
        Files(path=str(tmp_path / "set")).load()
    (tmp_path / "set" / "lot.json").write_text("{}")
    with pytest.raises(DataError, match=r"lot\.json: not the lot of a curated set"):
        Files(path=str(tmp_path / "set")).load()


@pytest.mark.slow
def test_training_on_it_makes_its_lot_a_parent(made):
    folder, out, _ = made
    code, _, err = foundry(
        folder, "train", f"data.path={out}", "data=files", "model=tiny", "examine=separate", "publish=none",
        "method.max_steps=1",
    )  # fmt: skip
    assert code == 0, err
    (run_dir,) = (folder / "outputs" / "train").iterdir()
    number = lot.read(out)["lot"]
    assert lot.read(run_dir)["contents"]["parents"] == [number]
    assert number in (run_dir / "model" / "README.md").read_text()
    again = curate(folder, f"data.path={out}", "out=sets/second")
    assert again[0] == 0, again[2]
    assert lot.read(folder / "sets" / "second")["contents"]["parents"] == [number]


def test_mlflow_shows_the_curation(made):
    from mlflow import MlflowClient

    folder, out, _ = made
    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    run = next(run for run in runs if run.data.params.get("out") == "sets/clean")
    assert (run.info.run_name, run.info.status) == ("curate", "FINISHED")
    assert run.data.tags["lot"] == lot.read(out)["lot"]
    assert run.data.metrics["rows_kept"] + run.data.metrics["rows_removed"] == run.data.metrics["rows_read"]
    assert {i.tags[0].value for i in run.inputs.dataset_inputs} == {"training", "eval"}


def test_a_taken_folder_is_refused_and_left_alone(made):
    folder, out, _ = made
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    runs = len(list((folder / "outputs" / "curate").iterdir()))
    for words in (["data.path=rows.jsonl"], [f"manifest={out}/manifest.yaml"]):
        code, _, err = curate(folder, *words, "out=sets/clean")
        assert code == 2
        assert err == (
            "foundry: configuration: out: sets/clean is there already; choose another folder, or remove it first\n"
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert len(list((folder / "outputs" / "curate").iterdir())) == runs
    code, _, err = curate(folder, "data.path=rows.jsonl", "out=rows.jsonl")
    assert (code, "is there already" in err) == (2, True)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "rows.jsonl", map(row, range(50)))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foundry.curation.write_yaml", full)
    code, _, err = curate(tmp_path, "data.path=rows.jsonl", "out=sets/clean")
    assert code == 3
    assert err.count("\n") == 1
    assert "No space left" in err
    assert list((tmp_path / "sets").iterdir()) == []


def test_its_manifest_makes_the_same_shards_again(made):
    folder, out, _ = made
    code, _, err = curate(folder, f"manifest={out}/manifest.yaml", "out=sets/again")
    assert code == 0, err
    assert lot.read(folder / "sets" / "again")["contents"]["files"] == lot.read(out)["contents"]["files"]
    assert yaml.safe_load((folder / "sets" / "again" / "manifest.yaml").read_text())["out"] == "sets/again"


def test_a_sweep_writes_a_folder_a_job(tmp_path):
    write(tmp_path / "rows.jsonl", map(row, range(60)))
    code, _, err = curate(tmp_path, "-m", "data.path=rows.jsonl", "data.seed=1,2", "out='sets/${data.seed}'")
    assert code == 0, err
    sets = [Files(path=str(tmp_path / "sets" / seed)).load() for seed in "12"]
    assert sets[0].sha256 != sets[1].sha256


def test_a_dry_run_writes_nothing(tmp_path):
    write(tmp_path / "rows.jsonl", map(row, range(50)))
    code, out, err = curate(tmp_path, "data.path=rows.jsonl", "out=clean", "dry_run=true")
    assert (code, err) == (0, "")
    assert "rows would be written" in out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.slow
def test_by_default_rows_that_mean_the_same_go_and_the_card_shows_them(tmp_path):
    asked = "How many legs does the big grey spider on the kitchen wall have today"
    near = [
        {"prompt": text, "completion": "It has eight | legs."}
        for text in (f"{asked}?", f"{asked.upper()}?", f"{asked} ?")
    ]
    write(tmp_path / "rows.jsonl", [*map(row, range(10)), *near])
    code, _, err = foundry(tmp_path, "curate", "data.path=rows.jsonl", "out=clean", "data.eval_fraction=0")
    assert code == 0, err
    kept = [
        item["prompt"][0]["content"] for item in Files(path=str(tmp_path / "clean"), eval_fraction=0.0).load().train
    ]
    assert sum("spider" in text.lower() for text in kept) == 1
    card = (tmp_path / "clean" / "README.md").read_text()
    assert "| 0.95 | " in card
    assert "| 3 | how many legs" in card.lower()
    assert "eight \\| legs" in card


def test_rows_that_overlap_given_evaluation_rows_are_left_out(tmp_path):
    asked = "Which of the seven old bridges of the town did the engineer from the north cross twice that day?"
    write(tmp_path / "rows.jsonl", [*map(row, range(50)), {"prompt": asked, "completion": "None."}])
    (tmp_path / "bench.txt").write_text(asked + "\n")
    words = ["data.path=rows.jsonl", "data.eval_fraction=0", "examine.decontaminate_against=[bench.txt]"]
    code, _, err = curate(tmp_path, *words, "out=clean")
    assert code == 0, err
    assert len(Files(path=str(tmp_path / "clean"), eval_fraction=0.0).load().train) == 50
    (finding,) = json.loads((tmp_path / "clean" / "overlaps.json").read_text())["findings"]
    assert "seven old bridges" in finding["text"]
    (removed,) = map(json.loads, (tmp_path / "clean" / "removed.jsonl").read_text().splitlines())
    assert removed["reference"] == "bench.txt"
    code, _, err = curate(tmp_path, *words, "examine.decontaminate=fail", "out=other")
    assert (code, "seven old bridges" in err) == (4, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "out: required, but not given; set out=…"),
        ("out=x", "data.path: required, but not given; set data.path=…"),
        ("out=x data.path=y engine=rays", "engine=rays: no such option; did you mean 'ray'?"),
        ("out=x data.path=y engine=ray engine.worker=2", "engine.worker: unknown key; did you mean 'workers'?"),
        ("out=x data.path=y engine=ray engine.workers=0", "engine.workers: found 0, expected 1 or more"),
        ("out=x data.path=y engine=ray engine.workers=2 engine.address=auto", "workers is for a Ray started here"),
        ("out=s3://bucket/set data.path=y", "out: found 's3://bucket/set', expected a folder on this machine"),
        ("out=x data.path=y examine=logic", "set examine=separate or examine=none"),
        ("out=x data.path=y method=lora", "method: unknown key"),
        ("out=x data.path=y shard_megabytes=0", "shard_megabytes: found 0, expected 1 or more"),
        ("out=x data.path=y --nope", "foundry curate --hydra-help lists the flags"),
        ("out=x data.path=y resume=z", "z/manifest.yaml: No such file"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, words, says):
    code, _, err = foundry(tmp_path, "curate", *words.split())
    assert code == 2, err
    assert says in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_cfg_speak_of_curation(tmp_path):
    code, out, _ = foundry(tmp_path, "curate", "--help")
    assert code == 0
    assert "foundry curate data=files" in out
    assert "shard_megabytes: 256" in out
    code, out, _ = foundry(tmp_path, "curate", "--cfg", "job")
    assert (code, yaml.safe_load(out)["out"]) == (0, "???")


def test_the_api_is_the_same_machinery(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", map(row, range(60)))
    manifest = package.compose(["data.path=rows.jsonl", "out=clean", "prune=exact"], "curate")
    curated = package.curate(manifest)
    assert curated.path == tmp_path / "clean"
    assert (curated.lot, curated.sha256) == (lot.read(curated.path)["lot"], Files(path="clean").load().sha256)
    assert not [finding for finding in package.verify(curated.path) if finding.bad]
    with pytest.raises(ConfigError, match="is there already"):
        package.curate(manifest)


# Shards: any rows that a source gives come back, in their order and in shards of bounded size.

SAID = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | SAID
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(SAID, inner, max_size=2), max_leaves=4
)
CALL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": SAID, "arguments": st.dictionaries(SAID, JSON, max_size=2)}),
    },
    optional={"id": SAID},
)
USER = st.fixed_dictionaries({"role": st.just("user"), "content": SAID})
ASSISTANT = st.fixed_dictionaries({"role": st.just("assistant"), "content": SAID})
CALLER = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.just(""), "tool_calls": st.lists(CALL, min_size=1, max_size=2)}
)
TOOL = st.fixed_dictionaries({"role": st.just("tool"), "content": SAID}, optional={"name": SAID, "tool_call_id": SAID})
TURNS = st.lists(USER | ASSISTANT | CALLER | TOOL, max_size=3)
PROMPT = st.builds(lambda first, turns: [first, *turns], USER, TURNS)
INSTRUCTION = st.fixed_dictionaries(
    {"prompt": PROMPT, "completion": st.lists(ASSISTANT | CALLER, min_size=1, max_size=1)},
    optional={"tools": st.lists(st.dictionaries(SAID, JSON, min_size=1, max_size=2), min_size=1, max_size=2)},
)
PREFERENCE = st.builds(
    lambda prompt, first, second: {"prompt": prompt, "chosen": [first], "rejected": [second]},
    PROMPT, ASSISTANT, ASSISTANT,
).filter(lambda pair: pair["chosen"] != pair["rejected"])  # fmt: skip
TEXT = st.fixed_dictionaries({"text": SAID})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(*(st.lists(shape, min_size=1, max_size=6) for shape in (INSTRUCTION, PREFERENCE, TEXT))), st.data())
def test_rows_come_back_as_they_were(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("shards")
    limit = data.draw(st.integers(1, 600))
    files = shards.write(folder, "train", rows, limit)
    back = Files(path=str(folder), eval_fraction=0.0, max_bad_fraction=0.0).load()
    assert back.sha256 == digest_rows(rows)
    pieces = [list(part) for part in shards._shards(rows, limit)]
    assert [item for piece in pieces for item in piece] == rows
    assert len(files) == len(pieces)
    sizes = [[len(canonical(item)) for item in piece] for piece in pieces]
    assert all(sum(piece) <= limit or len(piece) == 1 for piece in sizes)
    assert all(sum(piece) + following[0] > limit for piece, following in pairwise(sizes))


def test_a_field_without_a_place_is_not_dropped_in_silence(tmp_path):
    with pytest.raises(DataError, match=r"rows have score, for which a curated set has no place"):
        shards.write(tmp_path, "train", [{"text": "a", "score": 1}], 10**6)


def test_shards_do_not_depend_on_how_the_source_is_split(tmp_path):
    rows = [row(i) for i in range(300)]
    sources = {"one": [rows], "three": [rows[200:], rows[:100], rows[100:200]], "back": [rows[::-1]]}
    found = []
    for name, parts in sources.items():
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            write(tmp_path / name / f"{number}.jsonl", part)
        out = Path(tmp_path / f"{name}-shards")
        out.mkdir()
        found.append(shards.write(out, "train", Files(path=str(tmp_path / name)).load().train, 4000))
    assert len(found[0]) > 5
    assert found[0] == found[1] == found[2]


def test_a_dry_run_that_fails_leaves_no_directory(tmp_path):
    code, _, err = curate(tmp_path, "data.path=rows.jsonl", "out=clean", "dry_run=true")
    assert (code, err.count("\n")) == (4, 1)
    assert not list(tmp_path.iterdir())
