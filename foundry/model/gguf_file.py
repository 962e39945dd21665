"""A GGUF file made into a Transformers folder: weights dequantised to bf16, the tokenizer rebuilt.

transformers reads the weights. Its tokenizer is not used: for byte-level BPE it sets another end-of-turn
token, byte fallback and another decoder than the model was trained with, so a student would learn the
wrong stop token. The tokenizer is built here from the file's own vocabulary, merges and metadata.
"""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from foundry import console, gguf_header
from foundry.cache import made_once
from foundry.errors import ConfigError, DataError
from foundry.loading import quiet
from foundry.lot import digest_file

CONVERTER = 1
"""Part of the cache key: raise it when the conversion changes."""

_CONTROL = 3


def converted(file: Path) -> Path:
    """The converted folder of a GGUF file, made once for its content.

    Raises:
        DataError: The file is broken, or its tokenizer is of a kind that is not rebuilt here.
    """
    return made_once(
        "models", f"{file.stem}-{digest_file(file)[:16]}-v{CONVERTER}", lambda folder: _convert(file, folder)
    )


def _convert(file: Path, folder: Path) -> None:
    console.stage("model", f"converting {file.name}, once")
    write_tokenizer(file, folder)
    write_weights(file, folder)


def described(file: Path) -> dict[str, Any]:
    """The sizes in a file's metadata, under the names that config.json has for them.

    Raises:
        DataError: The file is broken, or describes no model.
    """
    fields = _read(file)
    try:
        kind = fields["general.architecture"]
        return {
            "model_type": kind,
            "hidden_size": fields[f"{kind}.embedding_length"],
            "intermediate_size": fields[f"{kind}.feed_forward_length"],
            "num_hidden_layers": fields[f"{kind}.block_count"],
            "num_attention_heads": fields[f"{kind}.attention.head_count"],
            "num_key_value_heads": fields.get(f"{kind}.attention.head_count_kv"),
            "vocab_size": len(fields["tokenizer.ggml.tokens"]),
            "tie_word_embeddings": "output.weight" not in _tensors(file),
        }
    except KeyError as error:
        raise DataError(f"{file}: describes no model: it has no {error}") from None


def write_weights(file: Path, folder: Path) -> None:
    """Write the file's weights as bf16 safetensors with config and generation config.

    Raises:
        DataError: transformers cannot read it.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    quiet()
    special = _special(_read(file))
    try:
        with redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    except (ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{file}: cannot be converted: {error}") from error
    # The weights are plain numbers now; while it claims to be quantised, a model refuses to be saved.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.update(special)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)


def write_tokenizer(file: Path, folder: Path) -> None:
    """Rebuild the tokenizer and chat template.

    Raises:
        DataError: The tokenizer is not the byte-level BPE with split digits that SmolLM uses.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = _read(file)
    kind = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise DataError(f"{file}: tokenizer {kind} is not supported; expected ('gpt2', 'smollm'), or a model folder")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    special = {name.removesuffix("_id"): tokens[number] for name, number in _special(fields).items()}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **special,
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = fields["tokenizer.chat_template"]
    fast.save_pretrained(folder)


def _special(fields: dict[str, Any]) -> dict[str, int]:
    """Ids of the special tokens. Padding must not be the end-of-turn token, or its loss would be masked."""
    return {
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.unknown_token_id"],
    }


def _tensors(file: Path) -> set[str]:
    from gguf import GGUFReader

    return {tensor.name for tensor in GGUFReader(file).tensors}


def _read(file: Path) -> dict[str, Any]:
    gguf_header.read(file)  # a library's reader believes every length that a file gives
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ConfigError(
            "model.name: a .gguf file needs the package gguf; pip install 'model-foundry[demo]'"
        ) from None
    try:
        return {key: field.contents() for key, field in GGUFReader(file).fields.items()}
    except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a GGUF file that can be read: {error}") from error
