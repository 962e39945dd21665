"""How much memory training takes at its peak, from the base's config.json alone; no weight is read.

The terms are counted from shapes where they can be; what a block keeps for its backward pass was counted from
the tensors that autograd saves, and the sum was compared with measured peaks (docs/methods.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundry.compute import Compute
from foundry.errors import DataError
from foundry.hardware import Machine, Needs
from foundry.loading import NF4
from foundry.method.adapter import Adapter
from foundry.method.batches import head_chunk, packed_length
from foundry.method.tokens import MASKED, longest_rows, sides, tokenise
from foundry.ranks import world
from foundry.records import Row

if TYPE_CHECKING:
    from foundry.method.tuning import Tuning

LIBRARIES = {"cpu": 700 * 2**20, "cuda": 500 * 2**20, "mps": 700 * 2**20}
"""Bytes that Python and its libraries hold on a CPU before a model is loaded, and a context on a GPU."""

BUFFERS = 200 * 2**20
"""Bytes that kernels' workspaces take and the allocator leaves unused."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder: layers of attention and gated MLP, between embeddings and a head."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_width: int
    q_width: int
    vocabulary: int
    tied: bool
    quantized: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Architecture":
        """Read a config.json.

        Raises:
            DataError: A size is missing.
        """
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            width = int(config.get("head_dim") or hidden // heads)
            return cls(
                hidden=hidden,
                inner=int(config.get("intermediate_size") or 4 * hidden),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_width=width * int(config.get("num_key_value_heads") or heads),
                q_width=width * heads,
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                quantized="quantization_config" in config,
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"config.json: no size can be read from it: {error}; expected a decoder model's") from None

    def linears(self) -> Iterator[tuple[str, int, int]]:
        """Name, inputs and outputs of each linear layer of a block."""
        yield "q_proj", self.hidden, self.q_width
        yield "k_proj", self.hidden, self.kv_width
        yield "v_proj", self.hidden, self.kv_width
        yield "o_proj", self.q_width, self.hidden
        yield "gate_proj", self.hidden, self.inner
        yield "up_proj", self.hidden, self.inner
        yield "down_proj", self.inner, self.hidden

    @property
    def linear_weights(self) -> int:
        """Weights of all linear layers but the head."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.linears())

    @property
    def other_weights(self) -> int:
        """Weights of embeddings, head and norms."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    def adapter_weights(self, adapter: Adapter) -> int:
        """Weights that an adapter adds."""
        wanted = [one for one in self.linears() if adapter.targets == "all-linear" or one[0] in adapter.targets]
        return self.layers * sum(
            adapter.rank * (inputs + outputs) + (outputs if adapter.dora else 0) for _, inputs, outputs in wanted
        )


@dataclass(frozen=True)
class Batch:
    """A batch as memory sees it: tokens (padding included), places where pairs have logits, trained tokens."""

    tokens: int
    places: int
    trained: int

    def scaled(self, share: float) -> "Batch":
        """A batch of a share of these rows."""
        return Batch(*(max(round(count * share), 1) for count in (self.tokens, self.places, self.trained)))


def full_batch(length: int, compute: Compute, *, pairs: bool) -> Batch:
    """The most that a batch can be: every row as long as it may be, all of it learnt."""
    tokens = compute.batch_size * (2 if pairs else 1) * length
    return Batch(tokens, tokens, tokens)


def widest_batch(
    rows: Sequence[Row], tokenizer: Any, limit: int, compute: Compute, *, pairs: bool, packing: bool
) -> Batch:
    """A batch of the longest rows; only the `SAMPLE` ones with the most characters are tokenised."""
    made = [sides(row) for row in tokenise(longest_rows(rows), tokenizer, limit, pairs=pairs)]
    made.sort(key=packed_length if packing else _longest, reverse=True)
    taken = made[: compute.batch_size]
    sequences = [side for row in taken for side in row]
    trained = sum(label != MASKED for *_, labels in sequences for label in labels)
    if packing:
        batch = Batch(sum(map(packed_length, taken)), trained, trained)
    else:
        length = _longest(sequences)
        start = min(next(i for i, label in enumerate(labels) if label != MASKED) for *_, labels in sequences)
        batch = Batch(len(sequences) * length, len(sequences) * (length - start + 1), trained)
    return batch.scaled(compute.batch_size / len(taken))  # there may be fewer rows than a batch has


def _longest(sequences: Sequence[tuple[str, list[int], list[int]]]) -> int:
    return max(len(ids) for _, ids, _ in sequences)


def needs(method: "Tuning", config: Mapping[str, Any], compute: Compute, node: Machine, batch: Batch) -> Needs:
    """Estimate a method's peak in one process, and that of settings which need less."""
    shape, parts = Architecture.of(config), world() if compute.fsdp else 1
    smaller = tuple(_smaller(method, shape, compute, node, batch, parts))
    return Needs(_terms(method, shape, node, batch, parts), smaller)


def _terms(method: "Tuning", shape: Architecture, node: Machine, batch: Batch, parts: int) -> dict[str, int]:
    """Bytes by what they are for, of a process that holds one of `parts` parts of what FSDP2 divides."""
    adapter = method.adapter
    trained = shape.linear_weights + shape.other_weights if adapter is None else shape.adapter_weights(adapter)
    divided, whole = _weights(method, shape, node)
    terms: dict[str, float] = {
        "libraries": LIBRARIES[node.device],
        "weights": divided / parts + whole,
        "adapter": 0 if adapter is None else trained * 4 / parts,
        "gradients": trained * 4 / parts,
        "optimiser": trained * 8 / parts,
        "activations": _activations(method, shape, node, batch),
        "logits": _logits(method, shape, batch),
        "buffers": BUFFERS,
    }
    if method.referenced:
        terms["reference"] = 0  # no second model: the adapter is switched off, or numbers were taken beforehand
    if parts > 1:
        terms["gathered"] = _gathered(shape, divided, whole)
        steps = sum(terms.values()) - terms["libraries"]
        terms["loading"] = max(divided + whole - steps, 0)  # each process opens the base whole, before it is divided
    return {name: round(count) for name, count in terms.items()}


def _weights(method: "Tuning", shape: Architecture, node: Machine) -> tuple[float, float]:
    """Bytes of the base's weights that FSDP2 divides, and of those that it does not: the 4-bit ones."""
    linear, other = shape.linear_weights, shape.other_weights
    if method.adapter is None:
        return 4.0 * (linear + other), 0.0
    frozen = 2 if node.precision == "bf16" and node.device != "cpu" else 4
    if shape.quantized or method.adapter.quantize is not None:
        return other * frozen, linear * NF4
    return (linear + other) * frozen, 0.0


def _gathered(shape: Architecture, divided: float, whole: float) -> float:
    """What FSDP2 puts together for a moment: two blocks, one fetched ahead, and the head, which stays together.

    Source: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html; accelerate keeps the head so.
    """
    linear = 0 if whole else shape.linear_weights  # 4-bit blocks are there already
    blocks = min(2, shape.layers) * linear / shape.layers
    return divided * (blocks + shape.vocabulary * shape.hidden) / (linear + shape.other_weights)


def _activations(method: "Tuning", shape: Architecture, node: Machine, batch: Batch) -> float:
    """What blocks keep for their backward pass: all of them, or their inputs and one block at a time."""
    block = batch.tokens * _kept(method, shape, node)
    if method.allow_gradient_checkpointing:
        return shape.layers * batch.tokens * shape.hidden * 4 + block
    return shape.layers * block


def _kept(method: "Tuning", shape: Architecture, node: Machine) -> float:
    """Bytes a token and block: residuals and norms in fp32, inputs and outputs of products at the machine's width."""
    width = 2 if node.precision == "bf16" else 4
    bare = (16 + 10 * width) * shape.hidden + 4 * width * shape.inner
    if method.adapter is None:
        return bare
    lora = 5 * width * shape.hidden + 3 * width * shape.inner
    # DoRA scales what base and adapter give: it keeps their sum for each layer, with dropout both and the dropped base.
    kept = 3 if method.adapter.dropout else 1
    return bare + lora + (kept * width * sum(out for *_, out in shape.linears()) if method.adapter.dora else 0)


def _logits(method: "Tuning", shape: Architecture, batch: Batch) -> float:
    """Of SFT, a chunk of tokens, remade in the backward pass; of pairs, every place that has them at once."""
    if not method.pairs:
        return min(head_chunk(batch.trained), batch.tokens) * shape.vocabulary * 4 * 4
    return shape.vocabulary * (batch.places * 6 + batch.trained * 8)


def _smaller(
    method: "Tuning", shape: Architecture, compute: Compute, node: Machine, batch: Batch, parts: int
) -> Iterator[tuple[str, int]]:
    """Settings that need less, the gentlest first: smaller batches, checkpointing, a 4-bit base, all of them."""
    for changed, words in _gentler(method):
        for share, text in _shares(compute):
            overrides = " ".join(filter(None, [words, text]))
            if overrides:
                yield overrides, sum(_terms(changed, shape, node, batch.scaled(share), parts).values())


def _shares(compute: Compute) -> Iterator[tuple[float, str]]:
    yield 1.0, ""
    size = compute.batch_size
    while size > 1 and size % 2 == 0:
        size //= 2
        steps = compute.grad_accum * compute.batch_size // size
        yield size / compute.batch_size, f"compute.batch_size={size} compute.grad_accum={steps}"


def _gentler(method: "Tuning") -> Iterator[tuple["Tuning", str]]:
    """The method itself, with checkpointing, on a 4-bit base, with both."""
    yield method, ""
    checkpointed = {} if method.allow_gradient_checkpointing else {"allow_gradient_checkpointing": True}
    words = "method.allow_gradient_checkpointing=true"
    if checkpointed:
        yield method.model_copy(update=checkpointed), words
    if method.adapter is not None and method.adapter.quantize is None:
        small = {"adapter": method.adapter.model_copy(update={"quantize": "nf4"})}
        yield method.model_copy(update=small), "method.adapter.quantize=nf4"
        if checkpointed:
            yield method.model_copy(update=small | checkpointed), f"method.adapter.quantize=nf4 {words}"
    elif method.adapter is None:
        everything = {"adapter": Adapter(quantize="nf4"), "allow_gradient_checkpointing": True}
        yield method.model_copy(update=everything), f"method=qlora {words}"
