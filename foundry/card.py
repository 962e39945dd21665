"""The model card: a README.md beside the weights, its front matter as the Hugging Face Hub reads it."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundry.config import TARGET
from foundry.deliverables import NOTHING, TESTED, Package
from foundry.records import Checkpoint, Dataset, Pruned, Verdict
from foundry.report import render
from foundry.run import write_atomic
from foundry.words import status

_SECTIONS = ("prune", "method", "recipe", "compute")
"""The settings that decide what is learnt; the others may name places on the machine."""


def write(
    settings: Mapping[str, Any],
    dataset: Dataset | None,
    pruned: Pruned | None,
    checkpoint: Checkpoint,
    verdict: Verdict | None,
    package: Package = NOTHING,
) -> Path:
    """Write README.md into the checkpoint's folder; without a verdict it says that nothing was examined.

    `package` is what was made of the checkpoint. A merge has no `pruned` rows, and one that is not examined no
    `dataset`.
    """
    base_import, base_place = base_in_python(settings, checkpoint.base.name)
    text = render(
        "card.md.j2",
        front=front_matter(settings, checkpoint),
        job_id=escape(settings["job_id"]),
        data_name=escape(dataset.name) if dataset else "",
        base_name=escape(checkpoint.base.name),
        base_import=base_import,
        base_place=base_place,
        messages=_messages(settings),
        hyperparameters=[(escape(key), escape(value)) for key, value in hyperparameters(settings)],
        dataset=dataset,
        pruned=pruned,
        checkpoint=checkpoint,
        verdict=verdict,
        package=package,
        TESTED=TESTED,
        status=status(verdict) if verdict else "not examined",
        escape=escape,
    )
    path = checkpoint.path / "README.md"
    write_atomic(path, text)
    return path


def front_matter(settings: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """The metadata as YAML, one key a line.

    Source: https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    adapter, merged = checkpoint.kind == "adapter", checkpoint.fusion is not None
    relation = "merge" if merged else "finetune"
    held = ["qlora"] if checkpoint.quantized else []
    metadata = {
        "base_model": " ".join(checkpoint.base.name.split()),
        "base_model_relation": "adapter" if adapter else relation,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["foundry", *(["merge", "mergekit"] if merged else _method_tags(settings.get("method", {}))), *held],
    }
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10**6).strip()


def _method_tags(method: Mapping[str, Any]) -> Iterator[str]:
    if TARGET in method:
        yield method[TARGET].rpartition(".")[2].lower()
    if method.get("adapter"):
        yield "dora" if method["adapter"].get("dora") else "lora"


def hyperparameters(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The settings that decide what is learnt, by dotted key."""
    return leaves(settings, _SECTIONS)


def leaves(settings: Mapping[str, Any], sections: Sequence[str]) -> list[tuple[str, Any]]:
    """The settings of these sections, by dotted key; a component's class by the section's name."""
    return [pair for name in sections for pair in _leaves(settings.get(name, {}), name)]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        yield key, node
        return
    for name, value in node.items():
        yield from _leaves(value, key if name == TARGET else f"{key}.{name}")


def escape(value: Any) -> str:
    """Write a value so that Markdown and HTML take it as one line of plain text."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)


def base_in_python(settings: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The Python that finds the base: an import, and what `from_pretrained` is given.

    A base that transformers cannot find by its name, a GGUF file for instance, is made by foundry again.
    """
    model = {key: value for key, value in settings.get("model", {}).items() if value is not None}
    module, _, maker = model.pop(TARGET, "").rpartition(".")
    known = model.get("name") == name and not name.startswith("package://") and not name.endswith(".gguf")
    if known or not maker:
        revision = f", revision={model['revision']!r}" if "revision" in model else ""
        return "", f"{name!r}{revision}"
    given = ", ".join(f"{key}={value!r}" for key, value in model.items())
    return f"from {module} import {maker}", f"{maker}({given}).fetch().path"


def _messages(settings: Mapping[str, Any]) -> str:
    """A conversation as Python code, with the system prompt that the rows had."""
    system = settings.get("data", {}).get("system_prompt")
    told = [{"role": "system", "content": system}] if system else []
    return repr([*told, {"role": "user", "content": "…"}])
