"""Where files may be: real object storage, a web server, memory, and names below a configured root."""

import functools
import io
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from foundry.data.files import Files
from foundry.errors import ConfigError, DataError

LINE = b'{"question": "q", "answer": "a"}\n'


def load(path, **settings):
    return Files(path=path, eval_fraction=0.0, **settings).load()


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A web server that knows neither ranges nor listings of folders, as many do."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "a.jsonl").write_bytes(LINE)
    (folder / "a.parquet").write_bytes(parquet())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def parquet():
    import pyarrow as pa
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pa.table({"question": ["q"], "answer": ["a"]}), sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def bucket():
    """A bucket of moto's S3 server, found through the environment as a real one would be."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("rows")
        system.pipe("rows/set/a.jsonl", LINE)
        system.pipe("rows/set/deep/b.parquet", parquet())
        yield "s3://rows"
    server.stop()


def test_a_web_address(web):
    assert load(f"{web}/a.jsonl").sha256 == load(f"{web}/a.parquet").sha256 == load(f"{web}/a.jsonl?x=[1]*").sha256
    with pytest.raises(DataError, match=r"/b\.jsonl: no such file"):
        load(f"{web}/b.jsonl")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/a\.jsonl: "):
        load("http://127.0.0.1:9/a.jsonl")


def test_object_storage(bucket):
    dataset = load(f"{bucket}/set")
    assert (dataset.name, len(dataset.train)) == ("set", 2)
    assert load(f"{bucket}/set/*.jsonl").notes == ("a.jsonl: 1 question_answer",)
    assert load("synthesis://set", synthesis_root=bucket).sha256 == dataset.sha256
    with pytest.raises(DataError, match="s3://rows/nothing"):
        load(f"{bucket}/nothing")
    with pytest.raises(DataError, match=r"s3://nobucket/a\.jsonl"):
        load("s3://nobucket/a.jsonl")


def test_memory():
    fsspec.filesystem("memory").pipe("/rows/a.jsonl", LINE)
    assert len(load("memory://rows").train) == 1


def test_synthesis_names_lie_below_the_root(tmp_path):
    (tmp_path / "logic_v2.jsonl").write_bytes(LINE)
    (tmp_path / "logic").mkdir()
    (tmp_path / "logic" / "a.jsonl").write_bytes(LINE + LINE)
    assert len(load("synthesis://logic_v2", synthesis_root=str(tmp_path)).train) == 1
    assert len(load("synthesis://logic", synthesis_root=f"{tmp_path}/").train) == 2
    with pytest.raises(DataError, match=r"set data\.synthesis_root"):
        load("synthesis://logic")
    for name in ("", "../logic", "a/../../b"):
        with pytest.raises(DataError, match="name below"):
            load(f"synthesis://{name}", synthesis_root=str(tmp_path / "logic"))
    with pytest.raises(DataError, match="synthesis://missing: no such file"):
        load("synthesis://missing", synthesis_root=str(tmp_path))


def test_what_is_missing_or_unknown_is_one_clear_line(tmp_path, monkeypatch):
    for path in (tmp_path / "nothing.jsonl", tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(DataError, match="no such file"):
            load(str(path))
    with pytest.raises(DataError, match="nowhere"):
        load("nowhere://a.jsonl")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=r"model-foundry\[s3\]"):
        load("s3://a/b.jsonl")


def test_a_local_file_whose_name_looks_like_a_pattern_is_read(tmp_path):
    (tmp_path / "a[1].jsonl").write_bytes(LINE)
    assert len(load(str(tmp_path / "a[1].jsonl")).train) == 1
