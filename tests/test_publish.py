"""Registries of every kind: refusals, tags, what a release holds, signatures, notices, what stays local."""

import hashlib
import hmac
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from lfs_server import lfs_server
from releases import HAS_LFS, KINDS, artefact, loaded, publisher
from storage import environment, s3_server

from foundry import git, lot, release
from foundry.errors import DataError, PublishError
from foundry.lot import digest_file
from foundry.publish import notice, registry
from foundry.publish.local import LocalRegistry
from foundry.publish.none import Unpublished
from foundry.verify import report, verify

EVERY_KIND = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(kind == "git_lfs" and not HAS_LFS, reason="needs git-lfs"))
        for kind in KINDS
    ],
)


@pytest.fixture(scope="module", autouse=True)
def storage():
    """An S3 server with a bucket, found through the environment."""
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(url).items():
            patch.setenv(name, value)
        from foundry.remote import s3_client

        s3_client().create_bucket(Bucket="shelf")
        yield url


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(registry, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(notice, "PAUSES", (0.01, 0.02))


@pytest.fixture
def place(tmp_path):
    """Where a registry of any kind may be, by a name of its own."""
    return tmp_path / f"registry-{os.urandom(4).hex()}"


@pytest.fixture
def run_dir(tmp_path):
    artefact(tmp_path / "run")
    return tmp_path / "run"


def publish(kind, place, run_dir, **settings):
    record = lot.read(run_dir)
    made, verdict = artefact(run_dir.with_name(f"{run_dir.name}-like"), seed=record["contents"]["seed"])
    shutil.rmtree(run_dir.with_name(f"{run_dir.name}-like"))
    made = replace(made, lot=record["lot"], path=run_dir / "model")
    return publisher(kind, place, **settings).publish(run_dir, made, replace(verdict, lot=record["lot"]))


def bad(place, **options):
    return {finding.name: finding.state for finding in verify(place, sources=False, **options) if finding.bad}


@pytest.fixture
def tracked(place, monkeypatch):
    """The MLflow store that `models:/` names stand in."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}.db")


@EVERY_KIND
@pytest.mark.usefixtures("tracked")
def test_a_release_comes_back_whole_from_every_kind(kind, place, run_dir, capsys):
    made = publish(kind, place, run_dir)
    papers = {"lot.json", "manifest.yaml", "verdict.json", "report.html", "loss.csv"}
    assert set(made.files) == papers | {"model/adapter_model.safetensors", "model/tokenizer.json", "model/README.md"}
    assert made.files == {name: digest_file(run_dir / name) for name in made.files}
    assert (made.tag, made.fresh, made.lot) == ("v1", True, lot.read(run_dir)["lot"])
    assert bad(made.uri) == {}
    report(made.uri)
    said = capsys.readouterr().out
    assert f"release  job v1, sha256 {made.digest}" in said
    assert f"data     sha256 {'d' * 64}" in said
    assert not list(run_dir.glob(".*"))


@EVERY_KIND
def test_the_same_release_again_is_done_already_and_another_lot_is_refused(kind, place, run_dir, tmp_path):
    first = publish(kind, place, run_dir)
    again = publish(kind, place, run_dir)
    assert (again.fresh, again.uri, again.digest) == (False, first.uri, first.digest)
    artefact(tmp_path / "other", seed=1)
    with pytest.raises(PublishError, match=rf"publish.tag=v1: .* holds lot {first.lot[:12]}, this is"):
        publish(kind, place, tmp_path / "other")
    assert publish(kind, place, tmp_path / "other", tag="w2").fresh
    assert publisher(kind, place).released("v1")["lot"] == first.lot


@EVERY_KIND
def test_the_same_lot_with_another_artefact_is_refused(kind, place, run_dir):
    publish(kind, place, run_dir)
    (run_dir / "package").mkdir()
    (run_dir / "package" / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(PublishError, match="holds digest"):
        publish(kind, place, run_dir)


def test_a_report_that_was_written_anew_does_not_make_another_artefact(place, run_dir):
    first = publish("local", place, run_dir)
    (run_dir / "report.html").write_text("12 s instead of 11 s")
    lot.seal(run_dir, ("report.html",))
    assert (publish("local", place, run_dir).fresh, bad(first.uri)) == (False, {})


def test_packages_that_differ_in_what_they_tell_alone_are_one_artefact(place, run_dir):
    (run_dir / "package").mkdir()
    for name in ("model-Q8_0.gguf", "eval_log.md", "SHA256SUMS"):
        (run_dir / "package" / name).write_text(name)
    first = publish("local", place, run_dir)
    for name in ("eval_log.md", "SHA256SUMS"):
        (run_dir / "package" / name).write_text("12 s instead of 11 s")
    assert (publish("local", place, run_dir).fresh, bad(first.uri)) == (False, {})
    (run_dir / "package" / "model-Q8_0.gguf").write_text("other weights")
    with pytest.raises(PublishError, match="holds digest"):
        publish("local", place, run_dir)


def test_release_json_says_what_it_is(place, run_dir):
    made = publish("local", place, run_dir, trigger_deployment=True)
    manifest = loaded(Path(made.uri) / "release.json")
    assert (manifest["lot"], manifest["tag"], manifest["trigger_deployment"]) == (made.lot, "v1", True)
    assert manifest["verdict"]["logic_score"]["measured"] == 0.8
    assert manifest["signed_by"] is None


def test_the_default_tag_is_the_lot(place, run_dir):
    made = publish("local", place, run_dir, tag=None)
    assert made.tag == f"lot-{made.lot[:12]}"


@EVERY_KIND
@pytest.mark.parametrize("bad", [{"passed": False}, {"examined": False}, {"lot": "b" * 64}])
def test_without_a_passing_verdict_on_this_lot_nothing_is_published(kind, place, tmp_path, bad):
    made, verdict = artefact(tmp_path / "run")
    with pytest.raises(PublishError, match="nothing was published"):
        publisher(kind, place).publish(tmp_path / "run", made, replace(verdict, **bad))
    assert publisher(kind, place).released("v1") is None


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: (run / "model" / "adapter_model.safetensors").write_bytes(b"other"), "differs from the lot"),
        (lambda run: (run / "model" / "tokenizer.json").unlink(), "is missing, but in the lot"),
        (lambda run: (run / "verdict.json").write_text("{}"), "differs from the lot"),
        (lambda run: (run / "model" / "a").symlink_to("/etc/passwd"), "a link"),
    ],
)
def test_what_is_not_what_was_examined_is_not_published(place, run_dir, harm, says):
    harm(run_dir)
    with pytest.raises(PublishError, match=f"{says}.*nothing was published"):
        publish("local", place, run_dir)
    assert not place.exists()


def test_what_a_killed_publisher_left_is_cleared(place, run_dir):
    dead = multiprocessing.get_context("spawn").Process(target=print)
    dead.start()
    dead.join()
    left = [place / "job" / f".incoming-{dead.pid}-00", run_dir / f".outgoing-{dead.pid}-00"]
    for folder in left:
        (folder / "model").mkdir(parents=True)
    publish("local", place, run_dir)
    assert not any(folder.exists() for folder in left)


def test_a_registry_that_is_a_file_is_a_publish_error(place, run_dir):
    place.write_text("")
    with pytest.raises(PublishError, match="nothing was published"):
        publish("local", place, run_dir)


def test_a_tag_that_is_something_else_is_a_publish_error(place, run_dir):
    (place / "job" / "v1").mkdir(parents=True)
    (place / "job" / "v1" / "README").write_text("")
    with pytest.raises(PublishError, match="what is there is no release"):
        publish("local", place, run_dir)


@pytest.mark.parametrize("tag", ["../v1", "a/b", ".hidden", ""])
def test_tags_cannot_leave_the_registry(tag):
    with pytest.raises(ValueError, match="tag"):
        LocalRegistry(registry="r", name="job", tag=tag)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("local", {"registry": "s3://bucket/prefix"}),
        ("s3", {"registry": "bucket/prefix"}),
        ("git_lfs", {"registry": "ext::sh -c touch% canary"}),
        ("git_lfs", {"registry": "--upload-pack=touch"}),
        ("git_lfs", {"registry": "ftp://host/x"}),
        ("local", {"notify": "file:///etc/passwd"}),
    ],
)
def test_registries_that_cannot_be_are_refused(kind, settings, tmp_path):
    cls = type(publisher(kind, tmp_path / "x"))
    with pytest.raises(ValueError, match=next(iter(settings))):
        cls(**{"registry": "x", "name": "job"} | settings)


def test_none_publishes_nowhere(tmp_path):
    made, verdict = artefact(tmp_path / "run")
    assert Unpublished().publish(tmp_path / "run", made, verdict).tag == ""


# Weights that leave the run directory.


@EVERY_KIND
@pytest.mark.usefixtures("tracked")
def test_local_weights_go_only_after_the_release_came_back(kind, place, run_dir, monkeypatch):
    (run_dir / "checkpoints" / "checkpoint-2").mkdir()
    (run_dir / "checkpoints" / "checkpoint-2" / "model.safetensors").write_bytes(b"x")
    cls = type(publisher(kind, place))
    with monkeypatch.context() as patch:
        patch.setattr(cls, "fetch", lambda *_: (_ for _ in ()).throw(DataError("gone")))
        with pytest.raises(PublishError, match="published, but cannot be read back: gone; tried 3 times"):
            publish(kind, place, run_dir, keep_local=False)
    assert (run_dir / "model" / "adapter_model.safetensors").is_file()
    made = publish(kind, place, run_dir, keep_local=False)
    assert made.removed == ("model/adapter_model.safetensors",)
    assert {path.name for path in (run_dir / "model").iterdir()} == {"tokenizer.json", "README.md"}
    assert not list((run_dir / "checkpoints").iterdir())
    assert bad(made.uri) == {}


def test_a_run_directory_without_its_weights_verifies_and_says_where_they_are(place, run_dir):
    publish("local", place, run_dir, keep_local=False)
    states = {finding.name: finding for finding in verify(run_dir, sources=False)}
    moved = states["model/adapter_model.safetensors"]
    assert (moved.state, moved.detail) == ("unchecked", "kept in the release alone; verify that")
    assert not [finding for finding in states.values() if finding.bad]
    (run_dir / "model" / "tokenizer.json").unlink()
    assert bad(run_dir) == {"model/tokenizer.json": "missing"}


# Signatures.


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys, made as the documentation says."""
    pytest.importorskip("model_signing")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        words = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private]
        subprocess.run(words, check=True, capture_output=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return folder


def model_signing(folder, key):
    """The public command, as anybody would call it."""
    words = ["verify", "key", str(folder), "--signature", str(folder / "model.sig"), "--public_key", str(key)]
    command = [str(Path(sys.executable).with_name("model_signing")), *words]
    if not Path(command[0]).exists():
        command = [sys.executable, "-m", "model_signing", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@EVERY_KIND
@pytest.mark.slow
@pytest.mark.usefixtures("tracked")
def test_the_public_command_verifies_a_signed_release_of_every_kind(kind, place, run_dir, keys, tmp_path):
    from foundry.remote import opened

    made = publish(kind, place, run_dir, sign=str(keys / "ours.pem"))
    with opened(made.uri) as folder:
        shutil.copytree(folder, tmp_path / "copy")
    assert bad(made.uri, key=keys / "ours.pub") == {}
    assert model_signing(tmp_path / "copy", keys / "ours.pub").returncode == 0
    assert model_signing(tmp_path / "copy", keys / "theirs.pub").returncode != 0
    (tmp_path / "copy" / "loss.csv").write_text("other")
    assert model_signing(tmp_path / "copy", keys / "ours.pub").returncode != 0


def forged(signature):
    """Another signature of the same form."""
    bundle = json.loads(signature)
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "A" + bundle["dsseEnvelope"]["signatures"][0]["sig"][1:]
    return json.dumps(bundle).encode()


def test_verify_checks_a_signature_and_names_what_is_wrong(place, run_dir, keys):
    folder = Path(publish("local", place, run_dir, sign=str(keys / "ours.pem")).uri)
    states = {finding.name: finding.state for finding in verify(folder, sources=False)}
    assert states["signature"] == "unchecked"
    assert bad(folder, key=keys / "ours.pub") == {}
    assert bad(folder, key=keys / "theirs.pub") == {"signature": "differs"}
    signature = (folder / "model.sig").read_bytes()
    for content in (b"", b"{}", b"[" * 100_000, signature.replace(b"A", b"B"), signature[:-9], forged(signature)):
        (folder / "model.sig").write_bytes(content)
        assert bad(folder, key=keys / "ours.pub") == {"signature": "differs"}
    (folder / "model.sig").unlink()
    assert bad(folder) == {"model.sig": "missing"}
    assert bad(folder, key=keys / "ours.pub") == {"signature": "missing"}


def test_whoever_makes_a_release_anew_cannot_sign_it(place, run_dir, keys):
    folder = Path(publish("local", place, run_dir, sign=str(keys / "ours.pem")).uri)
    (folder / "loss.csv").write_text("forged")
    lot.seal(folder, ("manifest.yaml", "model/README.md", "verdict.json", "report.html", "loss.csv"))
    old = release.read(folder)
    files = lot.digest_folder(folder, leave_out=("release.json", "model.sig"))
    rest = {key: value for key, value in old.items() if key not in {"name", "tag", "lot", "files", "digest"}}
    (folder / "release.json").write_bytes(release.text(release.described("job", "v1", old["lot"], files, **rest)))
    assert bad(folder) == {}
    assert bad(folder, key=keys / "ours.pub") == {"signature": "differs"}


def test_an_encrypted_key_takes_its_password_from_the_environment(place, run_dir, keys, tmp_path, monkeypatch):
    words = ["openssl", "ec", "-in", keys / "ours.pem", "-aes256", "-passout", "pass:hunter2", "-out", tmp_path / "k"]
    subprocess.run(words, check=True, capture_output=True)
    with pytest.raises(PublishError, match="FOUNDRY_SIGN_PASSWORD"):
        publish("local", place, run_dir, sign=str(tmp_path / "k"))
    monkeypatch.setenv("FOUNDRY_SIGN_PASSWORD", "hunter2")
    made = publish("local", place, run_dir, sign=str(tmp_path / "k"))
    assert bad(made.uri, key=keys / "ours.pub") == {}


@pytest.mark.parametrize("key", ["nowhere.pem", "public", "text", "rsa"])
def test_a_key_that_cannot_sign_is_found_before_anything_is_published(key, place, run_dir, keys, tmp_path):
    (tmp_path / "text").write_text("no key")
    (tmp_path / "public").write_bytes((keys / "ours.pub").read_bytes())
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa", "2048"], check=True, capture_output=True)
    with pytest.raises(PublishError, match=r"publish\.sign: .*expected a private key on an elliptic curve"):
        publish("local", place, run_dir, sign=str(tmp_path / key))
    assert not place.exists()


# Notices.


class Listener(BaseHTTPRequestHandler):
    """Answers with the codes that it is given, and keeps what it was sent."""

    def do_POST(self):
        self.server.got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        code = self.server.codes.pop(0) if self.server.codes else 204
        if code == 0:
            self.connection.close()
            return
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setenv("FOUNDRY_NOTIFY_SECRET", "hunter2-hunter2")
    server = HTTPServer(("127.0.0.1", 0), Listener)
    server.got, server.codes = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/hook?to=deploy"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_release_is_announced_with_a_signature(place, run_dir, listener):
    made = publish("local", place, run_dir, notify=listener.url, trigger_deployment=True)
    ((headers, body),) = listener.got
    expected = hmac.new(b"hunter2-hunter2", body, hashlib.sha256).hexdigest()
    assert headers["X-Foundry-Signature"] == f"sha256={expected}"
    event = json.loads(body)
    told = {key: event[key] for key in ("event", "job", "tag", "uri", "digest", "lot", "passed", "fresh")}
    told |= {"trigger_deployment": event["trigger_deployment"]}
    assert told == {
        "event": "release",
        "job": "job",
        "tag": "v1",
        "uri": made.uri,
        "digest": made.digest,
        "lot": made.lot,
        "passed": True,
        "fresh": True,
        "trigger_deployment": True,
    }
    assert (event["files"], event["verdict"]["logic_score"]["passed"]) == (made.files, True)
    assert made.notice == "sent"


@pytest.mark.parametrize("codes", [[500], [503, 429], [0, 500]])
def test_a_notice_is_tried_again(place, run_dir, listener, codes):
    listener.codes = list(codes)
    assert publish("local", place, run_dir, notify=listener.url).notice == "sent"
    assert len(listener.got) == len(codes) + 1


@pytest.mark.parametrize(("codes", "tries"), [([500] * 9, 3), ([403], 1), ([302], 1)])
def test_a_failed_notice_is_reported_and_does_not_unpublish(place, run_dir, listener, codes, tries, capsys):
    listener.codes = list(codes)
    made = publish("local", place, run_dir, notify=listener.url)
    assert (made.notice, len(listener.got)) == (f"failed: HTTP {codes[0]}", tries)
    assert f"the notice failed: HTTP {codes[0]}" in capsys.readouterr().err
    assert bad(made.uri) == {}


def test_a_notice_that_nobody_hears_is_reported(place, run_dir, monkeypatch):
    monkeypatch.setenv("FOUNDRY_NOTIFY_SECRET", "hunter2-hunter2")
    made = publish("local", place, run_dir, notify="http://127.0.0.1:9/")
    assert made.notice.startswith("failed: ")


def test_a_notice_without_a_secret_is_refused_before_anything_is_published(place, run_dir, monkeypatch):
    monkeypatch.delenv("FOUNDRY_NOTIFY_SECRET", raising=False)
    with pytest.raises(PublishError, match="FOUNDRY_NOTIFY_SECRET is not set"):
        publish("local", place, run_dir, notify="http://127.0.0.1:9/")
    assert not place.exists()


# What only one kind has.


def shell(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
def test_git_has_one_commit_and_one_annotated_tag_for_each_release(place, run_dir, tmp_path):
    publish("git_lfs", place, run_dir)
    artefact(tmp_path / "other", seed=1, weights=b"other weights")
    second = publish("git_lfs", place, tmp_path / "other", tag="w2")
    assert shell(place, "rev-list", "--count", "main").strip() == "2"
    assert shell(place, "cat-file", "-t", "v1").strip() == shell(place, "cat-file", "-t", "w2").strip() == "tag"
    assert shell(place, "rev-parse", "w2^{commit}") == shell(place, "rev-parse", "main")
    stored = shell(place, "show", "w2:model/adapter_model.safetensors")
    assert stored.splitlines()[0] == "version https://git-lfs.github.com/spec/v1"
    assert second.files["model/adapter_model.safetensors"] in stored
    assert int(shell(place, "cat-file", "-s", "w2:model/README.md")) == len(f"lot {second.lot}\r\n")
    assert "*.safetensors filter=lfs diff=lfs merge=lfs -text" in shell(place, "show", "w2:.gitattributes").splitlines()
    assert shell(place, "log", "-1", "--format=%s", "v1").startswith("job v1 (lot ")


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
def test_a_plain_clone_verifies_and_says_when_its_weights_are_not_there(place, run_dir, tmp_path):
    publish("git_lfs", place, run_dir)
    git.clone(place.as_uri(), "", tmp_path / "clone")
    assert bad(tmp_path / "clone") == {}
    (tmp_path / "clone" / ".gitattributes").write_text("* text\n")
    (tmp_path / "clone" / "extra").write_text("")
    assert bad(tmp_path / "clone") == {".gitattributes": "differs", "extra": "new"}
    variables = os.environ | {"GIT_LFS_SKIP_SMUDGE": "1"}
    subprocess.run(["git", "clone", "-q", place.as_uri(), tmp_path / "bare"], check=True, env=variables)
    (found,) = [finding for finding in verify(tmp_path / "bare", sources=False) if finding.bad]
    assert (found.name, "git lfs pull" in found.detail) == ("adapter_model.safetensors", True)


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
def test_a_branch_with_other_things_is_left_alone(place, run_dir, tmp_path):
    publisher("git_lfs", place)
    shell(tmp_path, "clone", "-q", str(place), "work")
    (tmp_path / "work" / "README").write_text("mine")
    shell(tmp_path / "work", "add", ".")
    shell(tmp_path / "work", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "mine")
    shell(tmp_path / "work", "push", "-q", "origin", "HEAD:main")
    with pytest.raises(PublishError, match=r"branch=main: .* has other things on it.*publish\.branch=releases"):
        publish("git_lfs", place, run_dir)
    made = publish("git_lfs", place, run_dir, branch="releases")
    assert bad(made.uri) == {}
    assert shell(place, "ls-tree", "--name-only", "main") == "README\n"


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
def test_a_repository_that_is_not_there_is_one_line(run_dir, tmp_path):
    with pytest.raises(
        PublishError, match=r"publish\.registry: file://.*: git ls-remote: fatal:.*; tried 3 times"
    ) as caught:
        publisher("git_lfs", tmp_path).publish(run_dir, *artefact(tmp_path / "r"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
def test_ssh_and_a_server_of_large_objects(place, run_dir, tmp_path, monkeypatch):
    publisher("git_lfs", place)
    with lfs_server(tmp_path) as server:
        monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "ssh"))
        made = publish("git_lfs", place, run_dir, registry=f"ssh://git@host{place}")
        assert made.uri == f"ssh://git@host{place}@v1"
        assert set(server.objects) == {made.files["model/adapter_model.safetensors"]}
        assert "Bearer hunter2" in server.seen
        assert bad(made.uri) == {}
        server.objects.clear()
        with pytest.raises(DataError, match=r"git-lfs|smudge|fatal"):
            verify(made.uri)


def test_git_lfs_that_is_not_installed_is_said_ahead(place, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git"))
    made = publisher("git_lfs", place)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("GIT_EXEC_PATH", str(tmp_path / "bin"))
    with pytest.raises(PublishError, match="publish=git_lfs needs git-lfs, which is not installed here"):
        made.check()


def test_a_large_file_goes_to_s3_in_parts_and_an_older_release_stays(place, tmp_path):
    from foundry.remote import s3_client

    made, verdict = artefact(tmp_path / "run", weights=os.urandom(20 * 2**20))
    found = publisher("s3", place).publish(tmp_path / "run", made, verdict)
    key = f"{place.name}/job/blobs/{found.digest}/model/adapter_model.safetensors"
    head = s3_client().head_object(Bucket="shelf", Key=key)
    assert head["ETag"].strip('"').endswith("-2")
    assert head["Metadata"]["sha256"] == found.files["model/adapter_model.safetensors"]
    assert bad(f"s3://shelf/{place.name}/job/blobs/{found.digest}") == {}


def test_storage_that_does_not_keep_to_conditions_is_refused(place, run_dir, monkeypatch):
    import botocore.client

    call = botocore.client.BaseClient._make_api_call

    def careless(self, name, arguments):
        return call(self, name, {key: value for key, value in arguments.items() if key != "IfNoneMatch"})

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", careless)
    with pytest.raises(PublishError, match="does not keep to If-None-Match"):
        publish("s3", place, run_dir)
    assert publisher("s3", place).released("v1") is None


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "EndpointConnectionError"),
        ("AWS_ENDPOINT_URL", "nonsense", "AWS_ENDPOINT_URL: Invalid endpoint: nonsense"),
    ],
)
def test_storage_that_does_not_answer_is_one_line(place, run_dir, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("foundry.publish.registry.PAUSES", ())
    with pytest.raises(PublishError, match=says) as caught:
        publish("s3", place, run_dir)
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_not_tried_again(run_dir, tmp_path, capsys):
    made = type(publisher("s3", "x"))(registry="s3://nobucket/x", name="job", tag="v1")
    with pytest.raises(PublishError, match=r"s3://nobucket/x: (404|NoSuchBucket)"):
        made.publish(run_dir, *artefact(tmp_path / "r"))
    assert "trying again" not in capsys.readouterr().err


@pytest.fixture
def mlflow_server(place):
    """MLflow's own server on loopback, with a store and artifacts of its own."""
    publisher("mlflow", place)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{place}.db", "--artifacts-destination", f"{place}-artifacts"]
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (place.parent / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], env=variables, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, (place.parent / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield url
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_a_server_of_mlflow(mlflow_server, place, run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    made = publish("mlflow", place, run_dir, registry=mlflow_server)
    assert (made.uri, made.fresh) == ("models:/job/1", True)
    assert not publish("mlflow", place, run_dir, registry=None).fresh
    artefact(tmp_path / "other", seed=1)
    with pytest.raises(PublishError, match="choose another tag"):
        publish("mlflow", place, tmp_path / "other", registry=None)
    publish("mlflow", place, tmp_path / "other", registry=None, tag="w2")
    assert {name: int(version) for name, version in aliases(place).items()} == {"champion": 2, "previous": 1}
    assert bad("models:/job@champion") == bad("models:/job@previous") == {}


def aliases(place):
    from mlflow import MlflowClient

    uri = f"sqlite:///{place}.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri).get_registered_model("job").aliases


def test_champion_moves_to_newer_releases_and_previous_follows(place, tmp_path):
    for seed, expected in enumerate([{"champion": 1}, {"champion": 2, "previous": 1}, {"champion": 3, "previous": 2}]):
        made, verdict = artefact(tmp_path / f"run{seed}", seed=seed)
        publisher("mlflow", place, tag=f"r{seed}").publish(tmp_path / f"run{seed}", made, verdict)
        assert {name: int(version) for name, version in aliases(place).items()} == expected
    made, verdict = artefact(tmp_path / "bad", seed=9)
    with pytest.raises(PublishError):
        publisher("mlflow", place, tag="r9").publish(tmp_path / "bad", made, replace(verdict, passed=False))
    made, verdict = artefact(tmp_path / "old", seed=0)
    assert not publisher("mlflow", place, tag="r0").publish(tmp_path / "old", made, verdict).fresh
    assert {name: int(version) for name, version in aliases(place).items()} == expected


@pytest.mark.usefixtures("tracked")
def test_the_champion_verifies_by_its_alias(place, run_dir, capsys):
    publish("mlflow", place, run_dir)
    report("models:/job@champion")
    assert "verified" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"models:/job@nobody: cannot be read from sqlite:///"):
        verify("models:/job@nobody")
