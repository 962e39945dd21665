"""The embedding service: what is sent, and what is said when it goes wrong."""

import numpy as np
import pytest

from foundry.errors import ConfigError, DataError
from foundry.prune.service import Service


def client(service, **chosen):
    return Service(service.url, "a-model", "TEST_KEY", pauses=chosen.get("pauses", ()))


def test_it_speaks_the_openai_api(service, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret")
    vectors = client(service).embed(["0/0", "1/90", "0/60"])
    np.testing.assert_allclose(vectors[:, :4], [[3, 0, 0, 0], [0, 0, 0, 3], [1.5, 2.598, 0, 0]], atol=1e-3)
    [(path, headers, model)] = service.headers
    assert (path, headers["Authorization"], model) == ("/v1/embeddings", "Bearer secret", "a-model")


def test_many_texts_go_in_parts_and_come_back_in_order(service):
    texts = [f"0/{number / 10}" for number in range(600)]
    vectors = client(service).embed(texts)
    assert len(service.headers) == 3
    np.testing.assert_allclose(np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])), np.arange(600) / 10, atol=1e-3)
    assert all("Authorization" not in headers for _, headers, _ in service.headers)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(service, status):
    service.answers = [(status, "busy")] * 2
    assert client(service, pauses=(0, 0)).embed(["0/0"]).shape[0] == 1
    assert len(service.headers) == 3
    service.answers = [(status, "busy")] * 3
    with pytest.raises(DataError, match=f"answered {status}: busy"):
        client(service, pauses=(0, 0)).embed(["0/0"])


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((401, "bad key"), ConfigError, "bad key"),
        ((404, "no such model"), ConfigError, "no such model"),
        ((307, ""), ConfigError, "307"),
        ((400, "too long"), DataError, "too long"),
        ((200, "not json"), DataError, "not JSON"),
        ((200, {"data": []}), DataError, "one embedding for each of 1"),
        ((200, {"error": "x"}), DataError, "one embedding for each of 1"),
        ((200, {"data": [{"index": 0, "embedding": [0.0, 0.0]}]}), DataError, "not zero"),
        ((200, {"data": [{"index": 0, "embedding": ["a"]}]}), DataError, "one embedding"),
        ((200, '{"data": [{"index": 0, "embedding": [NaN, 1]}]}'), DataError, "finite"),
    ],
)
def test_answers_that_cannot_be_used(service, monkeypatch, answer, kind, said):
    monkeypatch.setenv("TEST_KEY", "secret")
    service.answers = [answer]
    with pytest.raises(kind, match=said) as caught:
        client(service, pauses=(0,)).embed(["0/0"])
    assert "secret" not in str(caught.value)
    assert len(service.headers) == 1, "neither asked again nor followed elsewhere"


def test_nobody_there():
    with pytest.raises(DataError, match="cannot be reached"):
        Service("http://127.0.0.1:9/v1", "m", "TEST_KEY", pauses=()).embed(["a"])


@pytest.mark.parametrize(
    "url", ["http://example.org/v1", "https://user:word@example.org/v1", "https://example.org/v1?key=1"]
)
def test_a_key_is_neither_sent_unencrypted_nor_written_into_the_config(monkeypatch, url):
    monkeypatch.setenv("TEST_KEY", "secret")
    with pytest.raises(ConfigError, match="TEST_KEY"):
        Service(url, "m", "TEST_KEY")


def test_the_digest_names_url_and_model(service):
    assert Service(service.url, "a", "K").digest != Service(service.url, "b", "K").digest
    assert Service(service.url, "a", "K").digest == Service(service.url + "/", "a", "OTHER").digest
