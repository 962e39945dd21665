"""A small Llama with random weights and a real tokenizer: a whole run in seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from foundry.cache import made_once
from foundry.loading import quiet, read_config
from foundry.lot import digest, digest_file
from foundry.model import ModelSource
from foundry.model.folder import base_from_folder
from foundry.model.pretrained import gguf_path
from foundry.records import BaseModel


class Tiny(ModelSource):
    """A random model; it knows nothing, which is what a test wants.

    Attributes:
        tokenizer_of: A GGUF file, or `package://…`, whose tokenizer and chat template it takes.
        hidden_size: Width of the residual stream, a multiple of `heads`.
        layers: Number of decoder blocks.
        heads: Attention heads.
        seed: Seed of the weights.
    """

    tokenizer_of: str = Field(min_length=1)
    hidden_size: int = Field(64, ge=8, le=4096)
    layers: int = Field(2, ge=1, le=128)
    heads: int = Field(4, ge=1, le=128)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size must be an even multiple of heads={self.heads}")
        return self

    def config(self) -> Mapping[str, Any]:
        """The config of the model that these settings make."""
        return read_config(self.fetch().path)

    def fetch(self) -> BaseModel:
        """Make the model once for its settings and the tokenizer's content."""
        file = gguf_path(self.tokenizer_of)
        key = digest({"settings": self.model_dump(), "file": digest_file(file)})
        return base_from_folder(
            made_once("models", f"tiny-{key[:16]}", lambda folder: self._make(file, folder)), "tiny"
        )

    def _make(self, file: Path, folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

        from foundry.model.gguf_file import write_tokenizer

        quiet()
        write_tokenizer(file, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=2 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            **ids,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = LlamaForCausalLM(config)
        model.generation_config = GenerationConfig(**ids)
        model.save_pretrained(folder)
