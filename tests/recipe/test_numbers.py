"""What comes out, beside numpy written from the papers, beside peft, and beside mergekit-yaml's own path."""

import hashlib
import json

import numpy as np
import pytest
import torch
from family import base_model, fused, machine, recipe, tensors
from safetensors.torch import save_file

SHAPES = {"a.weight": (13, 9), "b.weight": (40,), "c.weight": (6, 5, 3)}


def plain_model(folder, seed, like=None):
    """Weights that no library would load, but that can be fused."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    if like:
        made = {name: like[name] + 0.1 * part for name, part in made.items()}
    save_file({name: torch.from_numpy(part) for name, part in made.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    base = plain_model(root / "base", 0)
    return root, base, [plain_model(root / name, seed, base) for seed, name in enumerate("AB", 1)]


def by_hand(formula, base, parents, *rest):
    return {name: formula(name, base[name], [parent[name] for parent in parents], *rest) for name in base}


def close(found, expected):
    for name, part in expected.items():
        np.testing.assert_allclose(found[name].numpy(), part, rtol=2e-6, atol=2e-6)


def task_arithmetic(_, base, parents, weights):
    """arXiv:2212.04089: the sum of scaled task vectors is added to the base."""
    return base + sum(weight * (parent - base) for weight, parent in zip(weights, parents, strict=True))


def linear(_, __, parents, weights):
    """arXiv:2203.05482, with weights."""
    return sum(weight * parent for weight, parent in zip(weights, parents, strict=True)) / sum(weights)


def elected(vectors, weights):
    """arXiv:2306.01708: the sign with more mass wins, and the mean is taken over the parents that agree with it."""
    weighted = np.stack([weight * vector for weight, vector in zip(weights, vectors, strict=True)])
    sign = np.where(weighted.sum(0) >= 0, 1, -1)
    agree = np.sign(weighted) == sign
    total = (agree * np.reshape(weights, (-1,) + (1,) * (weighted.ndim - 1))).sum(0)
    return (weighted * agree).sum(0), np.where(total == 0, 1, total)


def ties(_, base, parents, weights, densities):
    """arXiv:2306.01708: trim to the largest, elect signs, disjoint mean."""
    trimmed = []
    for parent, density in zip(parents, densities, strict=True):
        change = parent - base
        least = np.sort(np.abs(change), axis=None)[::-1][max(1, int(density * change.size)) - 1]
        trimmed.append(np.where(np.abs(change) >= least, change, 0))
    total, divisor = elected(trimmed, weights)
    return base + total / divisor


def masks(name, seed, shape, densities):
    """What DARE drops: a generator for the weight, seeded by its name, draws for one parent after the other."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(number)
    return [torch.bernoulli(torch.full(shape, share), generator=generator).numpy() for share in densities]


def dare_ties(name, base, parents, weights, densities, seed):
    """arXiv:2311.03099: drop at random and enlarge the rest, here to the l1 norm that all had; then the vote."""
    kept = []
    for parent, mask in zip(parents, masks(name, seed, base.shape, densities), strict=True):
        change = parent - base
        kept.append(change * mask * np.abs(change).sum() / np.abs(change * mask).sum())
    total, _ = elected(kept, weights)
    return base + total


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, -0.4), (2.0, 0.5)])
@pytest.mark.parametrize("densities", [(0.5, 0.5), (0.2, 0.9)])
def test_the_papers_formulas(models, tmp_path, weights, densities):
    root, base, parents = models
    sparse = [
        {"path": root / name, "weight": weight, "density": density}
        for name, weight, density in zip("AB", weights, densities, strict=True)
    ]
    plain = [{"path": root / name, "weight": weight} for name, weight in zip("AB", weights, strict=True)]
    cases = {
        "task_arithmetic": (plain, {}, task_arithmetic, (weights,)),
        "linear": (plain, {}, linear, (weights,)),
        "ties": (sparse, {}, ties, (weights, densities)),
        "dare_ties": (sparse, {"seed": 7}, dare_ties, (weights, densities, 7)),
    }
    for option, (adapters, settings, formula, rest) in cases.items():
        made = fused(recipe(option, *adapters, **settings), root / "base", tmp_path / option)
        close(tensors(made.path), by_hand(formula, base, parents, *rest))


def test_dare_drops_a_share_and_enlarges_the_rest(tmp_path):
    draw = np.random.default_rng(3)
    for name, change in (("base", 0), ("A", 1)):
        (tmp_path / name).mkdir()
        numbers = torch.from_numpy(change * draw.normal(size=(400, 500)).astype(np.float32))
        save_file({"a.weight": numbers}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    before = numbers.numpy()
    for density in (0.1, 0.3, 0.7):
        made = fused(recipe("dare_linear", tmp_path / "A", density=density), tmp_path / "base", tmp_path / f"{density}")
        after = tensors(made.path)["a.weight"].numpy()
        kept = after != 0
        assert abs(kept.mean() - density) < 4 * np.sqrt(density * (1 - density) / kept.size)
        factors = after[kept] / before[kept]
        assert factors.std() < 1e-5
        assert abs(factors.mean() * density - 1) < 0.02


def bits(tensor):
    return tensor.contiguous().view(torch.int16).to(torch.int32)


def test_weight_0_gives_the_base_back_to_the_bit(family, tmp_path):
    from safetensors.torch import load_file

    base = tmp_path / "base"
    base.mkdir()
    for file in family["base"].iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    odd = load_file(base / "model.safetensors")
    odd["model.layers.0.mlp.down_proj.weight"][0, :8] = torch.tensor([-0.0, 0.0, 1e-40, -1e-40, 3e38, -3e38, 1, -1])
    save_file(odd, base / "model.safetensors", metadata={"format": "pt"})
    for option in ("dare_ties", "dare_linear", "ties", "task_arithmetic", "della", "breadcrumbs"):
        adapters = [{"path": family[name], "weight": 0} for name in ("other", "full")]
        made = fused(recipe(option, *adapters), base, tmp_path / option)
        assert (made.path / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
@pytest.mark.parametrize("option", ["dare_ties", "ties", "task_arithmetic", "linear", "passthrough"])
def test_one_adapter_whole_is_what_peft_merges(family, tmp_path, kind, option):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(family["base"], dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, family[kind]).merge_and_unload().state_dict()
    settings = {"density": 1.0} if option in {"dare_ties", "ties"} else {}
    made = fused(recipe(option, family[kind], **settings), family["base"], tmp_path / "run")
    found, before = tensors(made.path), tensors(family["base"])
    assert made.kind == "full"
    for name, tensor in found.items():
        away = (bits(tensor) - bits(expected[name].to(torch.bfloat16))).abs()
        assert away.max() <= 1, name
        assert (away > 0).float().mean() < 0.01
    assert any(not torch.equal(found[name], before[name]) for name in found)


# mergekit's own path: plan, executor, adapters merged into folders.

SEEDED = {"dare_ties", "dare_linear", "della", "della_linear", "arcee_fusion"}
TWO = ["lora", "dora"]
WEIGHTED = ["task_arithmetic", "linear", "nuslerp", "multislerp"]
THINNED = ["dare_ties", "dare_linear", "ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"]
BARE = ["sce", "model_stock", "ram", "ramplus_tl", "karcher", "slerp", "nearswap", "arcee_fusion"]
OPTIONS = {
    **{option: {"weights": (1.0, 0.6)} for option in WEIGHTED},
    **{option: {"weights": (1.0, 0.6), "density": 0.6} for option in THINNED},
    **{option: {} for option in BARE},
    "passthrough": {"parents": ["rslora"]},
}
NAMES = {"scale": "lambda", "row_wise": "nuslerp_row_wise", "flatten": "nuslerp_flatten"}
NO_PARAMETER = {"adapters", "method", "seed", "output", "rank", "task_vectors", "density"}


def mergekit_file(family, option, chosen, parents, weights, density):
    """The file that says the same to mergekit-yaml."""
    references = [f"{family['base']}+{family[name]}" for name in parents]
    own = [{} for _ in parents]
    for number, weight in enumerate(weights or ()):
        own[number]["weight"] = weight
        if density:
            own[number]["density"] = density
    first = option in {"slerp", "nearswap", "arcee_fusion"}
    settings = {name: value for name, value in chosen.model_dump().items() if name not in NO_PARAMETER}
    if option == "multislerp":
        settings["normalize_weights"] = settings.pop("normalize")
    content = {
        "merge_method": option,
        "models": [{"model": one, "parameters": mine} for one, mine in zip(references, own, strict=True)],
        "parameters": {NAMES.get(name, name): value for name, value in settings.items() if value is not None},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    if option not in {"linear", "karcher", "passthrough"}:
        content["base_model"] = references[0] if first else str(family["base"])
    return content


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_mergekit_itself_gives_the_same_numbers(family, tmp_path, monkeypatch, option):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
    from mergekit.options import MergeOptions

    from foundry.recipe.seeded import seeded
    from foundry.recipe.stream import one_thread

    case = {"parents": TWO, "weights": None, "density": None, **OPTIONS[option]}
    adapters = [{"path": family[name]} for name in case["parents"]]
    for number, weight in enumerate(case["weights"] or ()):
        adapters[number]["weight"] = weight
    settings = {"seed": 5, **({"density": case["density"]} if case["density"] else {})}
    chosen = recipe(option, *adapters, **settings)
    made = fused(chosen, family["base"], tmp_path / "run")

    execute = ExecuteMergeMethodTask.execute

    def drawing(task, **arguments):
        with seeded(5, task.output_weight.name):
            return execute(task, **arguments)

    if option in SEEDED:  # mergekit would draw for one weight after the other
        monkeypatch.setattr(ExecuteMergeMethodTask, "execute", drawing)
    content = mergekit_file(family, option, chosen, **case)
    options = MergeOptions(lora_merge_cache=str(tmp_path / "cache"), lora_merge_dtype="float32", quiet=True)
    with one_thread():
        run_merge(MergeConfiguration.model_validate(content), str(tmp_path / "theirs"), options)
    found, theirs = tensors(made.path), tensors(tmp_path / "theirs")
    assert found.keys() == theirs.keys()
    for name, tensor in found.items():
        assert torch.equal(bits(tensor), bits(theirs[name])), name


def test_every_method_of_mergekit_has_a_recipe():
    from mergekit.merge_methods import registered_methods

    from foundry.config import CONF

    options = {path.stem for path in (CONF / "recipe").glob("*.yaml")}
    assert {method.spec.name for method in registered_methods()} == options - {"file"}


# The same bytes, always.


@pytest.mark.parametrize("option", ["dare_ties", "della", "arcee_fusion", "slerp", "karcher"])
def test_neither_threads_nor_what_was_drawn_before_change_a_byte(family, tmp_path, option):
    chosen = recipe(option, family["lora"], family["full"], seed=3)
    found = set()
    for threads in (1, 2, 5):
        torch.rand(threads)
        before, many = torch.get_rng_state(), torch.get_num_threads()
        made = fused(chosen, family["base"], tmp_path / str(threads), threads)
        found.add((made.path / "model.safetensors").read_bytes())
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == many
    assert len(found) == 1
    other = fused(recipe(option, family["lora"], family["full"], seed=4), family["base"], tmp_path / "other")
    same = (other.path / "model.safetensors").read_bytes() in found
    assert same == (option in {"slerp", "karcher", "arcee_fusion"})  # small weights are not sampled by the latter


def test_a_weight_s_draws_do_not_depend_on_other_weights_or_parents_that_do_not_count(family, tmp_path):
    one = fused(recipe("dare_ties", family["lora"], seed=3), family["base"], tmp_path / "one")
    adapters = [{"path": family["lora"]}, {"path": family["dora"], "weight": 0}]
    two = fused(recipe("dare_ties", *adapters, seed=3), family["base"], tmp_path / "two")
    assert (one.path / "model.safetensors").read_bytes() == (two.path / "model.safetensors").read_bytes()


# An adapter again.


def test_an_extracted_adapter_is_the_best_of_its_rank_and_peft_loads_it(family, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapters = [family["lora"], family["rslora"]]
    whole = tensors(fused(recipe("task_arithmetic", *adapters), family["base"], tmp_path / "whole").path)
    before = tensors(family["base"])
    for rank in (2, 7):
        made = fused(
            recipe("task_arithmetic", *adapters, output="adapter", rank=rank), family["base"], tmp_path / f"{rank}"
        )
        assert made.kind == "adapter"
        assert not (made.path / "model.safetensors").exists()
        base = AutoModelForCausalLM.from_pretrained(family["base"], dtype=torch.float32)
        found = PeftModel.from_pretrained(base, made.path).merge_and_unload().state_dict()
        for name in before:
            change = (whole[name].float() - before[name].float()).numpy()
            got = (found[name] - before[name].float()).numpy()
            if change.ndim < 2 or not change.any():
                assert not got.any()
                continue
            values = np.linalg.svd(change, compute_uv=False)
            assert np.linalg.norm(change - got) <= np.linalg.norm(values[rank:]) + 0.01 * np.linalg.norm(values)
    assert made.metrics["change_kept"] > 0.999  # ranks 4 and 2 (3) fit into 7


@pytest.mark.slow
def test_extraction_is_mergekit_s(family):
    from mergekit.architecture import WeightInfo
    from mergekit.io.tasks import LoadTensor
    from mergekit.scripts.extract_lora import TaskVectorDecompositionTask

    from foundry.recipe.extraction import factors

    change = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    task = TaskVectorDecompositionTask(
        weight_info=WeightInfo(name="x.weight"),
        input_task=LoadTensor(model=str(family["base"]), tensor="x.weight"),
        max_rank=5,
    )
    a, b = task.execute(task_vector=change)
    made = factors("x.weight", change, 5)
    torch.testing.assert_close(made.a, a)
    torch.testing.assert_close(made.b, b)


def test_many_files_and_safetensors_own_writer(family, tmp_path):
    from safetensors.torch import load_file

    from foundry.recipe.weights import Weights
    from foundry.recipe.writing import opened

    weights = Weights.of(family["base"])
    with opened(tmp_path, weights.shapes, weights.kinds, shard=5000) as spots:
        for name in reversed(list(weights.shapes)):
            spots[name].write(weights.tensor(name))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    for name, tensor in tensors(family["base"]).items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)


def test_a_base_in_4_bits_is_made_plain(family, tmp_path, capsys):
    dequantize_4bit = pytest.importorskip("bitsandbytes.functional").dequantize_4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four = tmp_path / "four"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(family["base"], quantization_config=config).save_pretrained(four)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (four / name).write_bytes((family["base"] / name).read_bytes())
    adapters = [{"path": family["lora"], "weight": 0}]
    settings = json.loads((family["lora"] / "adapter_config.json").read_text())
    copy = tmp_path / "adapter"
    copy.mkdir()
    (copy / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(four)}))
    (copy / "adapter_model.safetensors").write_bytes((family["lora"] / "adapter_model.safetensors").read_bytes())
    adapters[0]["path"] = copy
    made = fused(recipe("dare_ties", *adapters), four, tmp_path / "run")
    assert capsys.readouterr().err.count("4 bits") == 1
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())
    found, before = tensors(made.path), tensors(family["base"])
    assert found.keys() == before.keys()
    quantised = dict(AutoModelForCausalLM.from_pretrained(four).named_parameters())
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (before[name].dtype, before[name].shape)
        expected = quantised[name].data
        if expected.dtype == torch.uint8:
            expected = dequantize_4bit(expected, quantised[name].quant_state)
        assert torch.equal(tensor, expected.to(tensor.dtype)), name
    AutoModelForCausalLM.from_pretrained(made.path)
    assert base_model(made.path).parameters == base_model(family["base"]).parameters
    assert machine().threads == 2
