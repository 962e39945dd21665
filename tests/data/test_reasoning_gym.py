"""Questions of reasoning-gym."""

import pytest
from pydantic import ValidationError

from foundry.data.reasoning_gym import ReasoningGym
from foundry.errors import ConfigError


def syllogisms(**settings):
    return ReasoningGym(task="syllogism", task_settings={"invalid_ratio": 0.5}, **settings)


def question(row):
    return row["prompt"][-1]["content"]


def test_questions_are_the_librarys_own_and_their_answers_verified():
    import reasoning_gym

    dataset = syllogisms(size=30, eval_size=10, seed=5).load()
    drawn = reasoning_gym.create_dataset("syllogism", size=30, seed=5, invalid_ratio=0.5)
    expected = {item["question"]: item["answer"] for item in drawn}
    assert {question(row): row["completion"][0]["content"] for row in dataset.train} == expected


def test_no_question_is_both_trained_on_and_held_out():
    # Few distinct questions: only universal premises and inversions, so that the two draws collide.
    settings = {"allow_some": False, "allow_some_not": False, "inversion_probability": 1.0}
    dataset = ReasoningGym(task="syllogism", task_settings=settings, size=2000, eval_size=800).load()
    held_out = [question(row) for row in dataset.eval]
    assert not {question(row) for row in dataset.train} & set(held_out)
    assert len(held_out) == len(set(held_out))
    assert "dropped" in dataset.notes[0]


def test_classes_are_balanced():
    answers = [row["completion"][0]["content"] for row in syllogisms(size=2000, eval_size=0).load().train]
    assert 0.45 < answers.count("Yes") / len(answers) < 0.55


def test_system_prompt_and_limit():
    dataset = syllogisms(size=20, eval_size=1, limit=3, system_prompt="Be brief.").load()
    assert len(dataset.train) == 3
    assert dataset.train[0]["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_same_seed_same_digest_other_seed_other_digest():
    assert syllogisms(size=20).load().sha256 == syllogisms(size=20).load().sha256
    assert syllogisms(size=20).load().sha256 != syllogisms(size=20, seed=2).load().sha256


@pytest.mark.parametrize(("seed", "size", "eval_seed", "eval_size"), [(0, 10, 9, 1), (5, 1, 0, 6), (3, 4, 3, 4)])
def test_overlapping_seeds_are_refused(seed, size, eval_seed, eval_size):
    with pytest.raises(ValidationError, match="overlap"):
        syllogisms(seed=seed, size=size, eval_seed=eval_seed, eval_size=eval_size)


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'syllogism'"):
        ReasoningGym(task="sylogism").load()


def test_unknown_task_setting_is_a_config_error():
    with pytest.raises(ConfigError, match="task_settings"):
        ReasoningGym(task="syllogism", task_settings={"invalid_ration": 0.5}).load()
