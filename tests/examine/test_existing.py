"""Models that are there already: found, refused, examined as they are, with the lots that they come from."""

import contextlib
import io
import json
import re
import shutil
import subprocess

import pytest
import yaml

from foundry.errors import ConfigError, DataError
from foundry.existing import existing
from foundry.reexamine import overrides

TINY = [
    *("model=tiny", "data.size=24", "data.eval_size=12", "method.max_steps=2", "method.adapter.rank=2", "prune=none"),
    *("examine.metrics.logic_score.max_new_tokens=2", "examine.gates.logic_score.min_gain=null"),
]


def foundry(folder, *words):
    from foundry.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run and its release."""
    folder = tmp_path_factory.mktemp("finished")
    done = foundry(folder, "train", *TINY, "publish.tag=v1")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs" / "train").iterdir()
    return folder, run, folder / "outputs" / "registry" / "train" / "v1"


def newest(folder, job="examine"):
    return max((folder / "outputs" / job).iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("which", ["run", "release", "adapter"])
def test_a_run_a_release_and_an_adapter_are_examined_as_they_are(finished, which):
    folder, run, release = finished
    path = {"run": run, "release": release, "adapter": run / "model"}[which]
    done = foundry(folder, "examine", str(path))
    assert done.returncode == 0, done.stderr
    assert "training" not in done.stdout.split("foundry examine")[1]
    assert "tokens/s" not in done.stdout
    made = newest(folder)
    lot, first = (json.loads((place / "lot.json").read_text()) for place in (made, run))
    assert lot["contents"]["parents"] == [first["lot"]]
    assert lot["contents"]["base"] == first["contents"]["base"]
    weights = "model/adapter_model.safetensors"
    assert lot["contents"]["files"][weights] == first["contents"]["files"][weights]
    assert "pruned" not in lot["contents"]["dataset"]
    old, new = (json.loads((place / "verdict.json").read_text())["measurements"][0] for place in (run, made))
    assert (old["measured"], old["baseline"]) == (new["measured"], new["baseline"])
    checked = foundry(folder, "verify", str(made))
    assert checked.returncode == 0, checked.stderr + checked.stdout
    page = (made / "report.html").read_text()
    assert "Training loss" not in page
    assert "examined by foundry as it was" in (made / "model" / "README.md").read_text()
    assert (run / "model" / "README.md").read_text() != (made / "model" / "README.md").read_text()


@pytest.mark.slow
def test_a_qlora_student_tells_how_its_base_was_held_also_when_it_is_examined_again(tmp_path):
    done = foundry(tmp_path, "train", *TINY, "method=qlora", "compute.backend=peft", "publish=none")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    done = foundry(tmp_path, "examine", str(run))
    assert done.returncode == 0, done.stderr
    for place in (run, newest(tmp_path)):
        card = (place / "model" / "README.md").read_text()
        assert "- qlora" in card.split("---")[1]
        assert "| The base's weights | held in 4 bits (NF4) while this was trained and in examinations" in card
        assert "held in 4 bits (NF4)" in (place / "report.html").read_text()
    old, new = (json.loads((place / "verdict.json").read_text())["measurements"] for place in (run, newest(tmp_path)))
    assert old == new


def test_the_untouched_base_is_examined_with_method_none_and_fails_a_gain(finished):
    folder, _, _ = finished
    words = [word for word in TINY if not word.startswith("method.")]
    done = foundry(folder, "train", *words[:-1], "method=none", "job_id=base", "examine.gates.logic_score.min_gain=0.1")
    assert done.returncode == 5
    assert "logic_score" in done.stderr
    made = newest(folder, "base")
    assert json.loads((made / "lot.json").read_text())["contents"]["parents"] == []
    assert yaml.safe_load((made / "manifest.yaml").read_text())["method"]["path"] is None
    assert (made / "model" / "model.safetensors").is_file()


def test_another_base_is_refused(finished):
    folder, run, _ = finished
    done = foundry(folder, "examine", str(run), "model.seed=1")
    assert done.returncode == 4
    said = r"method\.path: \S+: was made from tiny \(weights (\w{12})\), not from tiny \(weights (?!\1)\w{12}\)"
    assert re.search(said, done.stderr), done.stderr


def test_a_run_whose_weights_are_not_those_of_its_lot_is_not_examined(finished, tmp_path):
    """Neither as what is examined nor as a baseline: its lot would vouch for weights that it does not name."""
    folder, run, _ = finished
    for broken, harm in {"changed": "differs from", "missing": "is missing, says"}.items():
        copy = shutil.copytree(run, tmp_path / broken)
        weights = copy / "model" / "adapter_model.safetensors"
        if broken == "missing":
            shutil.copy(weights, weights.with_name("adapter_model-2.safetensors"))
            weights.unlink()
        else:
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.unlink()  # a hard link, perhaps
            weights.write_bytes(content)
        for words in ([str(copy)], [str(run), f"examine.baseline={copy}"]):
            done = foundry(folder, "examine", *words, "job_id=broken")
            assert done.returncode == 4, done.stderr
            (line,) = [said for said in done.stderr.splitlines() if said.startswith("foundry: ")]
            assert line.startswith(f"foundry: data: {weights}: {harm} {copy / 'lot.json'}; foundry verify {copy}")


def test_a_release_may_be_the_baseline(finished):
    folder, run, release = finished
    done = foundry(folder, "examine", str(run), f"examine.baseline={release}", "job_id=same")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((newest(folder, "same") / "verdict.json").read_text())["measurements"]
    assert found["measured"] == found["baseline"]
    assert found["interval"] == [0, 0]


def test_a_dry_run_of_an_examination_writes_nothing(finished):
    folder, run, _ = finished
    before = set(folder.rglob("*"))
    done = foundry(folder, "examine", str(run), "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert {path for path in set(folder.rglob("*")) - before if "mlflow" not in path.name} == set()


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ([], ConfigError, "expected a path"),
        (["method=lora"], ConfigError, "expected a path"),
        (["nowhere"], DataError, "nowhere: nothing; expected a run directory"),
    ],
)
def test_mistakes_are_told_in_a_line(words, error, says):
    with pytest.raises(error, match=says):
        overrides(words)


def test_nothing_is_trained(finished):
    with pytest.raises(ConfigError, match="nothing is trained here"):
        overrides([str(finished[1]), "method=lora"])


def test_a_model_folder_is_its_own_base(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no weights; expected"):
        existing(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = overrides([str(tmp_path), "examine=safety"])
    assert {"model=local", f"model.name='{tmp_path}'", "method=none", "prune=none", "publish=none"} <= set(found)
    assert found[-1] == "examine=safety"
    assert existing(tmp_path).kind == "full"


def test_an_adapter_names_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "model.name='org/base'" in overrides([str(tmp_path)])
    assert not [word for word in overrides([str(tmp_path), "model.name=x"]) if "org/base" in word]
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(DataError, match="not valid JSON"):
        overrides([str(tmp_path)])
