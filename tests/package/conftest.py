"""A tiny base, a student of it, and a run directory to package it from."""

import pytest
from students import SMOLLM2, adapter, run_of

from foundry.model.tiny import Tiny


@pytest.fixture(scope="session")
def base():
    return Tiny(tokenizer_of=SMOLLM2, seed=3).fetch()


@pytest.fixture(scope="session")
def lora(base, tmp_path_factory):
    return adapter(base, tmp_path_factory.mktemp("lora"))


@pytest.fixture
def run(lora, tmp_path):
    return run_of(lora, tmp_path / "run")
