"""Ten thousand seeded mutations of what people and other machines hand in: typed errors of one line, and no hang.

A tenth of them in the ordinary suite; FOUNDRY_TRUST=full takes all.
"""

import json
import os
import random
import shutil
import signal

import pytest
from releases import artefact, publisher

from foundry.data.files import Files
from foundry.errors import FoundryError
from foundry.replay import read_manifest
from foundry.safety import check_model
from foundry.train import TrainManifest
from foundry.verify import verify

COUNT = 2500 if os.environ.get("FOUNDRY_TRUST") == "full" else 250
"""Of each of four kinds."""

LIMIT = 5
"""Seconds that one may take."""

WORDS = [
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"\\ud800", b"${oc.env:HOME}", b"${x}", b"???"),
    *(
        b"../../etc/passwd",
        b"_target_",
        b"os.system",
        b"&a [*a]",
        b"!!python/object/apply:os.system",
        b"\0",
        b"\xff\xfe",
    ),
    *(
        b"[" * 2000,
        b"{" * 50,
        b"9" * 5000,
        "é".encode(),
        b"\r\n",
        b": ",
        b"- ",
        b"'",
        b'"',
        b"<<: *x",
        b"\t",
        b"sha256",
    ),
]


def mutated(content, dice):
    """Change some bytes: flip, cut, repeat, put in, swap."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        place = dice.randrange(len(data) + 1)
        span = min(dice.choice((1, 2, 8, 64)), len(data) - place)
        match dice.randrange(6):
            case 0 if span:
                data[place] ^= 1 << dice.randrange(8)
            case 1:
                del data[place : place + span]
            case 2:
                data[place:place] = data[place : place + span]
            case 3:
                data[place:place] = dice.choice(WORDS)
            case 4:
                data[place : place + span] = dice.choice(WORDS)
            case _:
                other = dice.randrange(len(data) + 1)
                data[place : place + span] = data[other : other + span]
    return bytes(data)


def swapped(content, dice):
    """Change a value of a JSON document for another kind of value."""
    document = json.loads(content)
    values = [
        None,
        True,
        -1,
        10**400,
        1e308,
        "",
        "x" * 10_000,
        [],
        {},
        [[]],
        {"": None},
        "../x",
        "a\0b",
        ["a"],
        "0" * 64,
    ]
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return json.dumps(document).encode()
        key = dice.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and dice.random() < 0.8:
            node = node[key]
            continue
        match dice.randrange(3):
            case 0:
                node[key] = dice.choice(values)
            case 1:
                del node[key]
            case _ if isinstance(node, dict):
                node[dice.choice(["../x", "", "_target_", "a" * 1000, key + " "])] = node.pop(key)
        return json.dumps(document).encode()


class Hang(Exception):  # noqa: N818
    """It took too long."""


@pytest.fixture
def watched():
    """Ends what takes longer than LIMIT."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def survive(work, content):
    """See that `work` ends well or in a typed error of one line."""
    told, code, wrong = "nothing", 2, ""
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        work()
    except FoundryError as error:
        told, code = str(error).strip(), error.exit_code
    except Hang:
        wrong = f"still at it after {LIMIT} s"
    except Exception as error:  # noqa: BLE001
        wrong = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if wrong or not told or "Traceback" in told or code not in {2, 3, 4, 6}:
        pytest.fail(f"{wrong or told}: {content[:2000]!r}", pytrace=False)


def changes(seeds, kind):
    """Mutations of the seeds, one after the other, the same in each run."""
    dice = random.Random(kind)
    for turn in range(COUNT):
        seed = seeds[turn % len(seeds)]
        is_json = seed.lstrip()[:1] == b"{" and b"\n{" not in seed.strip()
        yield swapped(seed, dice) if is_json and dice.random() < 0.5 else mutated(seed, dice)


@pytest.mark.slow
def test_manifests(tmp_path, watched):  # noqa: ARG001
    from foundry import compose
    from foundry.run import write_yaml

    write_yaml(tmp_path / "run.yaml", compose(["publish.tag=v1"]).record())
    older = (
        b"job_id: a\nbase_model: x\nmethod_config: {type: lora, rank: 8}\npublish_target: {registry: shelf, tag: v1}\n"
    )
    path = tmp_path / "manifest.yaml"

    def work():
        from omegaconf import OmegaConf

        read_manifest(path)
        TrainManifest.from_config(OmegaConf.create({"manifest": str(path), "resume": None}), [f"manifest={path}"])

    for content in changes([(tmp_path / "run.yaml").read_bytes(), older], "manifests"):
        path.write_bytes(content)
        survive(work, content)


ROWS = [
    b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n' * 3,
    b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n',
    b'{"instruction": "a", "input": "", "output": "b"}\n{"instruction": "c", "input": "d", "output": "e"}\n',
    b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
    b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n',
    b'{"text": "a"}\n{"text": "b"}\n',
    b'[{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]',
]


@pytest.mark.slow
def test_rows(tmp_path, watched):  # noqa: ARG001
    for turn, content in enumerate(changes(ROWS, "rows")):
        path = tmp_path / f"rows.{'csv' if turn % 11 == 0 else 'json' if turn % 7 == 6 else 'jsonl'}"
        path.write_bytes(content)
        survive(lambda path=path: Files(path=str(path), eval_fraction=0.0).load(), content)


@pytest.mark.slow
def test_adapter_and_model_configs(tmp_path, watched):  # noqa: ARG001
    adapter = {
        "peft_type": "LORA",
        "r": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "b",
        "auto_mapping": None,
    }
    config = {"model_type": "llama", "hidden_size": 8, "quantization_config": {"load_in_4bit": True}}
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    seeds = {"adapter_config.json": adapter, "config.json": config, "model.safetensors.index.json": index}
    names = list(seeds)
    for turn, content in enumerate(changes([json.dumps(seed).encode() for seed in seeds.values()], "adapters")):
        path = tmp_path / names[turn % len(names)]
        path.write_bytes(content)
        survive(lambda: check_model(tmp_path), content)
        path.unlink()


@pytest.mark.slow
def test_lots_and_what_lies_beside_them(tmp_path, watched):  # noqa: ARG001
    made, verdict = artefact(tmp_path / "run")
    publisher("local", tmp_path / "registry").publish(tmp_path / "run", made, verdict)
    folder = tmp_path / "registry" / "job" / "v1"
    names = ["lot.json", "lot.json", "release.json", "verdict.json", "manifest.yaml", "model/README.md"]
    seeds = [(folder / name).read_bytes() for name in names]
    for turn, content in enumerate(changes(seeds, "lots")):
        path = folder / names[turn % len(names)]
        path.write_bytes(content)

        findings = []
        survive(lambda findings=findings: findings.extend(verify(folder)), content)
        seed = seeds[turn % len(names)]
        assert content == seed or not findings or any(found.bad for found in findings), content
        path.write_bytes(seed)
    shutil.rmtree(folder)
