"""foundry verify: every kind of change to an artefact is found."""

import json
import shutil

import pytest
import yaml
from releases import SETTINGS, artefact, publisher

from foundry import lot
from foundry.errors import DataError
from foundry.run import write_json, write_yaml
from foundry.verify import report, verify


@pytest.fixture
def run_dir(tmp_path):
    artefact(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def release(tmp_path):
    checkpoint, verdict = artefact(tmp_path / "source")
    publisher("local", tmp_path / "registry").publish(tmp_path / "source", checkpoint, verdict)
    return tmp_path / "registry" / "job" / "v1"


def bad(folder):
    return {finding.name: finding.state for finding in verify(folder, sources=False) if finding.bad}


def test_untouched_artefacts_verify(run_dir, release):
    assert bad(run_dir) == bad(release) == {}


FILES = [
    "model/adapter_model.safetensors",
    "model/tokenizer.json",
    "model/README.md",
    "manifest.yaml",
    "verdict.json",
    "report.html",
    "loss.csv",
    "lot.json",
    "release.json",
]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARM = {
    "flip": flip,
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "append": lambda path: path.write_bytes(path.read_bytes() + b" x"),
    "remove": lambda path: path.unlink(),
    "link": lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to("elsewhere")),
    "rename": lambda path: path.rename(path.with_name(path.name.upper())),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", FILES)
def test_every_harm_to_every_file_of_a_release_is_found(release, name, harm):
    HARM[harm](release / name)
    try:
        found = bad(release)
    except DataError:
        return
    assert found


def edited(path, **changes):
    write_json(path, {**json.loads(path.read_text()), **changes})


OTHER_HARM = {
    "a case collision": lambda r: shutil.copy(r / "model" / "tokenizer.json", r / "model" / "Tokenizer.json"),
    "a hidden file": lambda r: (r / "model" / ".hidden").write_text("x"),
    "a file of git in no clone": lambda r: (r / ".gitattributes").write_text("* text"),
    "a hidden folder": lambda r: ((r / ".cache").mkdir(), (r / ".cache" / "x").write_text("x")),
    "a folder for a file": lambda r: ((r / "loss.csv").unlink(), (r / "loss.csv").mkdir()),
    "a link to the same content": lambda r: (
        shutil.move(r / "loss.csv", r.parent / "away"),
        (r / "loss.csv").symlink_to(r.parent / "away"),
    ),
    "a folder that is a link": lambda r: (
        shutil.move(r / "model", r.parent / "away"),
        (r / "model").symlink_to(r.parent / "away"),
    ),
    "a link in the release's root": lambda r: (r / "x").symlink_to("/etc"),
    "a hard-linked stranger": lambda r: (r / "model" / "y").hardlink_to(r / "loss.csv"),
    "checkpoints that make it look like a run": lambda r: ((r / "checkpoints").mkdir(), (r / "new").write_text("x")),
    "a pickle beside the weights": lambda r: (r / "model" / "adapter_model.bin").write_bytes(b"x"),
    "a signature that nobody made": lambda r: (r / "model.sig").write_text("{}"),
    "another tag": lambda r: edited(r / "release.json", tag="v2"),
    "another name": lambda r: edited(r / "release.json", name="other"),
    "another lot in the release": lambda r: edited(r / "release.json", lot="0" * 64),
    "another digest": lambda r: edited(r / "release.json", digest="0" * 64),
    "no files in the release": lambda r: edited(r / "release.json", files={}),
    "a deployment that nobody asked for": lambda r: edited(r / "release.json", trigger_deployment=True),
    "a better score in the release": lambda r: edited(r / "release.json", verdict={}),
    "a better score in the verdict": lambda r: edited(r / "verdict.json", measurements=[]),
    "a verdict turned around": lambda r: edited(r / "verdict.json", passed=False),
    "another lot number": lambda r: edited(r / "lot.json", lot="0" * 64),
    "nothing sealed": lambda r: edited(r / "lot.json", sealed={}),
    "release.json with other spaces": lambda r: (r / "release.json").write_text(
        json.dumps(json.loads((r / "release.json").read_text()))
    ),
    "lot.json with other spaces": lambda r: (r / "lot.json").write_text(json.dumps(lot.read(r))),
    "a key twice in release.json": lambda r: (r / "release.json").write_text(
        (r / "release.json").read_text().replace('"tag": "v1"', '"tag": "v0", "tag": "v1"')
    ),
    "line ends changed": lambda r: (r / "model" / "README.md").write_bytes(
        (r / "model" / "README.md").read_bytes().replace(b"\r\n", b"\n")
    ),
    "a byte order mark": lambda r: (r / "manifest.yaml").write_bytes(
        b"\xef\xbb\xbf" + (r / "manifest.yaml").read_bytes()
    ),
    "weights for a tokenizer": lambda r: shutil.copy(
        r / "model" / "adapter_model.safetensors", r / "model" / "tokenizer.json"
    ),
    "a pointer in place of release.json": lambda r: write_json(
        r / "release.json", {"uri": "x", "removed": ["loss.csv"], "files": {"loss.csv": "0" * 64}}
    ),
}


@pytest.mark.parametrize("harm", OTHER_HARM)
def test_every_other_kind_of_tampering_is_found(release, harm):
    OTHER_HARM[harm](release)
    try:
        found = bad(release)
    except DataError:
        return
    assert found


@pytest.mark.parametrize("part", ["lot.json", "release.json", "verdict.json", "manifest.yaml", "model"])
def test_a_part_of_another_release_is_found(release, tmp_path, part):
    checkpoint, verdict = artefact(tmp_path / "foreign", seed=7, weights=b"foreign")
    write_yaml(tmp_path / "foreign" / "manifest.yaml", {"job_id": "foreign"})
    lot.seal(tmp_path / "foreign", ("manifest.yaml", "model/README.md", "verdict.json", "report.html", "loss.csv"))
    publisher("local", tmp_path / "other").publish(tmp_path / "foreign", checkpoint, verdict)
    foreign = tmp_path / "other" / "job" / "v1" / part
    if part == "model":
        shutil.rmtree(release / part)
        shutil.copytree(foreign, release / part)
    else:
        shutil.copy(foreign, release / part)
    assert bad(release)


@pytest.mark.parametrize("name", ["model/extra.safetensors", "model/sub/deep.json", "extra.txt"])
def test_a_new_file_is_found(release, name):
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_text("new")
    assert bad(release) == {name: "new"}


def test_swapped_files_are_found(release):
    first, second = release / "model" / "tokenizer.json", release / "model" / "adapter_model.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert bad(release) == {"model/tokenizer.json": "differs", "model/adapter_model.safetensors": "differs"}


def test_an_edited_lot_is_found_even_if_its_file_digests_fit(run_dir):
    (run_dir / "model" / "tokenizer.json").write_text('{"a": 1}')
    record = lot.read(run_dir)
    record["contents"]["files"]["model/tokenizer.json"] = lot.digest_file(run_dir / "model" / "tokenizer.json")
    write_json(run_dir / "lot.json", record)
    assert bad(run_dir) == {"lot number": "differs"}


def test_a_lot_made_again_after_a_change_no_longer_fits_verdict_and_card(run_dir):
    record = lot.read(run_dir)
    record["contents"]["seed"] = 9
    record["lot"] = lot.digest(record["contents"])
    write_json(run_dir / "lot.json", record)
    assert bad(run_dir) == {"verdict's lot": "differs", "model card's lot": "differs"}


def test_a_foreign_manifest_is_found(run_dir):
    write_yaml(run_dir / "manifest.yaml", {**SETTINGS, "job_id": "other"})
    assert bad(run_dir) == {"manifest": "differs", "manifest.yaml": "differs"}


def test_sources_that_are_not_at_hand_are_unchecked_not_bad(run_dir):
    states = {finding.name: finding.state for finding in verify(run_dir)}
    assert states["sources"] == "unchecked"


def test_a_changed_data_file_is_found(tmp_path, run_dir):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    settings = {
        "job_id": "job",
        "data": {"_target_": "foundry.data.files.Files", "path": str(rows), "eval_fraction": 0.0},
        "model": {"_target_": "foundry.model.pretrained.Pretrained", "name": "nowhere.gguf"},
    }
    write_yaml(run_dir / "manifest.yaml", settings)
    record = lot.read(run_dir)
    record["contents"]["dataset"]["train"] = lot.digest_rows([{"text": "a"}])
    write_json(run_dir / "lot.json", record)

    def states():
        return {finding.name: finding.state for finding in verify(run_dir)}

    assert (states()["data"], states()["base model"]) == ("ok", "unchecked")
    rows.write_text('{"text": "b"}\n')
    assert states()["data"] == "differs"


def test_the_command_fails_and_names_what_differs(run_dir, capsys):
    (run_dir / "report.html").write_text("other")
    with pytest.raises(DataError, match=r"report\.html differs"):
        report(str(run_dir))
    assert "differs" in capsys.readouterr().out


def test_no_lot_no_verification(tmp_path):
    with pytest.raises(DataError, match=r"lot\.json"):
        verify(tmp_path)


def test_a_hostile_manifest_runs_nothing(run_dir, tmp_path):
    canary = tmp_path / "canary"
    settings = {"job_id": "x", "data": {"_target_": "os.system", "command": f"touch {canary}"}, "model": {}}
    (run_dir / "manifest.yaml").write_text(yaml.safe_dump(settings) + "\n")
    assert "manifest" in bad(run_dir)
    verify(run_dir)
    assert not canary.exists()


def test_release_json_must_agree_with_lot_json(release):
    manifest = json.loads((release / "release.json").read_text())
    manifest["files"]["report.html"] = "0" * 64
    write_json(release / "release.json", manifest)
    assert bad(release) == {"release's digest": "differs", "release.json: report.html": "differs"}


def test_a_release_moved_elsewhere_still_verifies(release, tmp_path):
    shutil.move(release, tmp_path / "moved")
    assert bad(tmp_path / "moved") == {}
