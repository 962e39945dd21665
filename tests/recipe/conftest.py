"""Parents, made once for all tests of recipes."""

import pytest
from family import adapted, random_model


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """Folders: the base, a second base, a full model, and adapters of different kinds and ranks."""
    root = tmp_path_factory.mktemp("family")
    base = random_model(root / "base", 0)
    return {
        "base": base,
        "other": random_model(root / "other", 1),
        "full": random_model(root / "full", 2),
        "lora": adapted(base, root / "lora", 3, r=4, lora_alpha=8),
        "dora": adapted(base, root / "dora", 4, r=6, lora_alpha=6, use_dora=True),
        "rslora": adapted(
            base, root / "rslora", 5, r=2, lora_alpha=4, use_rslora=True, alpha_pattern={"q_proj": 7},
            rank_pattern={"down_proj": 3},
        ),
    }  # fmt: skip
