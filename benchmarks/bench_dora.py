"""A DoRA step beside a LoRA step, and beside DoRA as peft computes it: SmolLM2-135M, batches of 4 real rows.

The three runs take turns, a step each, in one process; same rows, rank 16, every linear layer.
"""

from statistics import median
from unittest.mock import patch

from benchmarks.beside_trl import STEPS, job, ours
from benchmarks.mixed_rows import rows
from benchmarks.race import race


def run():
    base = job("lora", 1e-3, 4).model.fetch()
    taken = rows(4 * STEPS, str(base.path))
    runners = {"ours": ours(job("dora", 1e-3, 4), taken), "lora": ours(job("lora", 1e-3, 4), taken)}
    _, times = race(runners | {"peft": as_peft(ours(job("dora", 1e-3, 4), taken))})
    found = []
    for peer, name in (("lora", "a LoRA step"), ("peft", "peft's DoRA step")):
        ratio = median(a / b for a, b in zip(times["ours"], times[peer], strict=True))
        figures = {"ours": ratio * median(times[peer]), "peer": median(times[peer])}
        found.append({"what": f"DoRA step beside {name} (median of ratios)", **figures, "unit": "CPU s"})
    return {"name": "DoRA (peer: named in the row)", "rows": found}


def as_peft(runner):
    """The same run with peft's own norms."""

    def run(tick):
        changed = patch("foundry.method.dora.factor", lambda _: 0)
        changed.start()

        def first_tick():
            changed.stop()  # from the first step on, layers stay as they are
            tick()

        ticks = iter([first_tick])
        return runner(lambda: next(ticks, tick)())  # noqa: PLW0108  # not the same one each time

    return run


if __name__ == "__main__":
    for row in run()["rows"]:
        print(row)
