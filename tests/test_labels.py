"""How far the syllogisms' labels agree with logic: what the README says of the main job's ceiling."""

import itertools
import re

from foundry.data.reasoning_gym import ReasoningGym


def statement(text):
    quantifier, subject, negated, predicate = re.fullmatch(r"(All|No|Some) (\w+) are (not )?(\w+)\??", text).groups()
    return ("Some not" if negated else quantifier), subject, predicate


def holds(claim, terms, world):
    """Whether a claim is true of a world: the inhabited combinations of the terms."""
    quantifier, subject, predicate = claim
    a, b = terms.index(subject), terms.index(predicate)
    both = any(region[a] and region[b] for region in world)
    only = any(region[a] and not region[b] for region in world)
    return {"All": not only, "No": not both, "Some": both, "Some not": only}[quantifier]


def follows(premises, conclusion):
    """Whether the conclusion holds in every world of the premises in which every term is inhabited."""
    terms = sorted({term for claim in [*premises, conclusion] for term in claim[1:]})
    regions = list(itertools.product([False, True], repeat=len(terms)))
    for chosen in itertools.product([False, True], repeat=len(regions)):
        world = [region for region, inhabited in zip(regions, chosen, strict=True) if inhabited]
        inhabited = all(any(region[i] for region in world) for i in range(len(terms)))
        if inhabited and all(holds(p, terms, world) for p in premises) and not holds(conclusion, terms, world):
            return False
    return True


def test_about_92_percent_of_the_labels_agree_with_traditional_logic():
    settings = {"invalid_ratio": 0.5}
    rows = ReasoningGym(
        task="syllogism", task_settings=settings, size=400, seed=1_000_001, eval_seed=1, eval_size=0
    ).load()
    agreed = 0
    for row in rows.train:
        lines = row["prompt"][-1]["content"].split("\n")
        premises = [statement(line[3:]) for line in lines if re.match(r"\d\. ", line)]
        conclusion = statement(lines[lines.index("Does it logically follow that:") + 1])
        agreed += follows(premises, conclusion) == (row["completion"][0]["content"] == "Yes")
    assert 0.90 < agreed / len(rows.train) < 0.94
