"""A small Llama in bf16 with adapters of several kinds, made by peft, and ways to fuse them."""

import json
from pathlib import Path

WORDS = {chr(97 + i) + chr(97 + j): 16 * i + j for i in range(6) for j in range(16)}


def tokenizer(folder, words=WORDS, **special):
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": words}, "added_tokens": []}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "ab", **special}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def random_model(folder, seed, dtype="bfloat16", hidden=32):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=hidden, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer(folder)
    return folder


def adapted(base, folder, seed, **settings):
    """An adapter that peft makes, every number of it random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **settings)
        model = get_peft_model(model, config)
        for name, weight in model.named_parameters():
            if "magnitude" in name:
                weight.data *= 1 + 0.1 * torch.rand_like(weight)
            elif "lora_" in name:
                weight.data = 0.1 * torch.randn_like(weight)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def base_model(folder):
    from foundry.model.folder import base_from_folder

    return base_from_folder(Path(folder), str(folder))


def machine(threads=2):
    from foundry.hardware import Machine

    return Machine("cpu", "fp32", threads, "a processor", 2**33, 2**33)


def fused(recipe, base, run_dir, threads=2):
    """Fuse as an entry does; gives the checkpoint."""
    run_dir.mkdir(parents=True)
    return recipe.fuse(recipe.prepare(base_model(base), machine(threads)), machine(threads), run_dir)


def tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def recipe(option, *adapters, **settings):
    """A shipped recipe with these parents; words after `path` are the parent's own settings."""
    from foundry import compose

    parents = [
        {"path": str(one)} if not isinstance(one, dict) else {**one, "path": str(one["path"])} for one in adapters
    ]
    words = ",".join("{" + ",".join(f"{key}:{value}" for key, value in one.items()) + "}" for one in parents)
    overrides = [f"recipe={option}", f"recipe.adapters=[{words}]", "publish=none", "examine=none"]
    return compose([*overrides, *(f"recipe.{key}={value}" for key, value in settings.items())], "merge").recipe
