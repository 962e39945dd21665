"""DoRA with norms from the factors beside peft's own: outputs, gradients, saving, merging."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


class Stack(nn.Module):
    """Layers of the given sizes, with and without a bias in turn."""

    def __init__(self, *sizes, dtype=torch.float32):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(a, b, bias=i % 2 == 1, dtype=dtype) for i, (a, b) in enumerate(pairwise(sizes)))
        )

    def forward(self, x):
        return self.layers(x)


def adapted(model, rank, dropout=0.0, rslora=False):
    """The model with a DoRA adapter that has learnt something."""
    from peft import LoraConfig, get_peft_model

    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=dropout, use_rslora=rslora, use_dora=True, target_modules=names
    )
    made = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
            if "magnitude" in name:
                weight.mul_(torch.rand_like(weight) + 0.5)
    return made


def learnt(model, x, seed=0):
    """Output, and the gradients of input and adapter, from one step."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    out = model(x)
    out.float().square().mean().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    return {"output": out.detach(), "input": x.grad, **found}


def pair(model):
    """peft's, and a copy that takes norms from the factors."""
    from foundry.method.dora import factor

    ours = copy.deepcopy(model)
    assert factor(ours) > 0
    return model, ours


def assert_alike(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name, expected in one.items():
        scale = float(expected.abs().max())
        assert scale > 0, name
        assert torch.allclose(other[name], expected, rtol=0, atol=tolerance * scale), name


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(8, 64), min_size=2, max_size=4),
    rank=st.integers(1, 48),
    rslora=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_pefts(sizes, rank, rslora, dropout, seed):
    torch.manual_seed(seed)
    theirs, ours = pair(adapted(Stack(*sizes), rank, dropout, rslora))
    x = torch.randn(2, 3, sizes[0])
    one, other = learnt(theirs, x, seed), learnt(ours, x, seed)
    assert_alike({k: v for k, v in one.items() if v.any()}, {k: v for k, v in other.items() if one[k].any()})
    theirs.eval(), ours.eval()
    assert torch.allclose(theirs(x), ours(x), atol=1e-5)


def exact(model):
    """The norm of each row of W + s·BA written out in double precision, for each layer."""
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            w, a, b = (part.weight.double() for part in (layer.base_layer, layer.lora_A.default, layer.lora_B.default))
            yield layer, (w + layer.scaling["default"] * b @ a).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_those_of_the_dense_product(dtype):
    torch.manual_seed(1)
    _, ours = pair(adapted(Stack(96, 200, 64, dtype=dtype), 8))
    for layer, norm in exact(ours):
        found = layer.lora_variant["default"].norm(
            layer.base_layer, layer.lora_A.default.weight, layer.lora_B.default.weight, layer.scaling["default"]
        )
        assert torch.allclose(found.double(), norm, rtol=1e-5 if dtype is torch.float32 else 2e-3)


def test_bf16_products_give_what_pefts_do_but_for_rounding():
    torch.manual_seed(1)
    theirs, ours = pair(adapted(Stack(96, 200, 64), 8))
    x = torch.randn(5, 96)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = learnt(theirs, x), learnt(ours, x)
    assert one["output"].dtype == other["output"].dtype == torch.bfloat16
    assert_alike(one, other, 0.02)


def test_the_norm_follows_every_change_of_the_weights():
    torch.manual_seed(1)
    theirs, ours = pair(adapted(Stack(24, 40, 8), 4))
    x = torch.randn(5, 24)
    for _ in range(3):
        assert_alike(learnt(theirs, x), learnt(ours, x))
        with torch.no_grad():
            for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                other.add_(torch.full_like(other, 0.05))
                mine.copy_(other)


def test_parameters_merging_and_unmerging_are_pefts():
    torch.manual_seed(1)
    theirs, ours = pair(adapted(Stack(24, 40, 8), 4))
    x = torch.randn(5, 24)
    before = ours(x)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.merge_adapter(), ours.merge_adapter()
    assert torch.equal(ours(x), theirs(x))
    assert torch.allclose(ours(x), before, atol=1e-5)
    ours.unmerge_adapter()
    assert torch.allclose(ours(x), before, atol=1e-5)
    with ours.disable_adapter(), theirs.disable_adapter():
        theirs.unmerge_adapter()
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_a_base_in_four_bits_gives_pefts_gradients():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(1)
    bare = Stack(64, 128, 64)
    for index, layer in enumerate(bare.layers):
        four = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, torch.float32, quant_type="nf4"
        )
        four.load_state_dict(layer.state_dict())
        bare.layers[index] = four.to("cpu")
    theirs, ours = pair(adapted(bare, 4))
    x = torch.randn(5, 64)
    assert_alike(learnt(theirs, x), learnt(ours, x))


def test_layers_that_are_no_plain_product_stay_with_peft():
    from peft import LoraConfig, get_peft_model

    from foundry.method.dora import factor

    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.Flatten(), nn.Linear(12, 3))
    made = get_peft_model(model, LoraConfig(r=2, use_dora=True, target_modules=["0", "2"]))
    assert factor(made) == 1
    assert factor(get_peft_model(Stack(4, 4), LoraConfig(r=2, target_modules=["layers.0"]))) == 0
