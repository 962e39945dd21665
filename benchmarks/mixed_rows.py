"""Real instruction rows of 20 to 500 tokens: tasks of reasoning-gym, and the Python library's functions."""

import ast
import random
import sysconfig
from functools import cache
from pathlib import Path

SHORTEST, LONGEST = 20, 500
TASKS = ("syllogism", "family_relationships", "leg_counting", "word_sorting", "gsm_symbolic", "number_sequence")
MODULES = ("textwrap", "shutil", "statistics", "inspect", "difflib", "calendar", "tokenize", "tempfile", "argparse")


@cache
def rows(count, tokenizer_folder, seed=0):
    """As many rows, half tasks and half functions, in any order; the lengths are those of the chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    found, random_ = {"task": [], "function": []}, random.Random(seed)
    for kind, prompt, answer in [*tasks(count, seed), *functions()]:
        row = {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        length = len(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False))
        if SHORTEST <= length <= LONGEST:
            found[kind].append(row)
    taken = [row for kind in found.values() for row in random_.sample(kind, count // 2)]
    return tuple(random_.sample(taken, len(taken)))


def tasks(count, seed):
    import reasoning_gym

    for name in TASKS:
        for entry in reasoning_gym.create_dataset(name, size=count // len(TASKS) + 8, seed=seed):
            yield "task", entry["question"], entry["answer"]


def functions():
    """Functions with a docstring: asked for by it, answered with the source."""
    for module in MODULES:
        text = (Path(sysconfig.get_path("stdlib")) / f"{module}.py").read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                yield "function", f"Write {node.name}: {ast.get_docstring(node)}", ast.get_source_segment(text, node)


def preferences(count, tokenizer_folder, seed=0):
    """The same rows, each with another row's answer as the rejected one."""
    taken = rows(count, tokenizer_folder, seed)
    for row, other in zip(taken, taken[1:] + taken[:1], strict=True):
        yield {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
