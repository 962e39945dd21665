"""Modelfiles: the template renders as transformers does, the grammar is held, anything written is read back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.errors import DataError
from foundry.loading import load_tokenizer
from foundry.package import modelfile

LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
REVERSED = "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base.path)


@pytest.fixture(scope="module", params=["its own", "llama 3"])
def templated(request, base):
    tokenizer = load_tokenizer(base.path)
    if request.param == "llama 3":
        tokenizer.chat_template = LLAMA3
    return tokenizer


WORDS = st.text(st.characters(exclude_characters="\ue000", exclude_categories=["Cs"]), max_size=30)
TALK = st.tuples(WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=3)).map(
    lambda told: [
        {"role": "system", "content": told[0]},
        {"role": "user", "content": told[1]},
        *(m for a, u in told[2] for m in ({"role": "assistant", "content": a}, {"role": "user", "content": u})),
    ]
)


@given(TALK)
def test_the_go_template_renders_as_the_chat_template(templated, talk):
    told = modelfile.template(templated)
    expected = templated.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert modelfile.rendered(told, talk) == expected


@pytest.mark.parametrize("jinja", [REVERSED, MISTRAL, "{{ messages[0]['content'] }}", "{{ raise_exception('no') }}"])
def test_a_template_that_is_not_turn_after_turn_is_left_to_the_file(base, jinja):
    tokenizer = load_tokenizer(base.path)
    tokenizer.chat_template = jinja
    assert modelfile.template(tokenizer) is None


def test_the_templates_own_system_prompt_is_found(tokenizer, base):
    assert modelfile.default_system(tokenizer) == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    other = load_tokenizer(base.path)
    other.chat_template = LLAMA3
    assert modelfile.default_system(other) is None


def test_a_beginning_token_that_ollama_adds_itself_is_left_out(base):
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(base.path)
    tokenizer.chat_template = "{{ bos_token }}" + LLAMA3
    assert modelfile.template(tokenizer).count(tokenizer.bos_token) == 1
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
    assert tokenizer.bos_token not in modelfile.template(tokenizer)


PLAIN = st.text(
    st.characters(exclude_categories=["C"], exclude_characters='"\u2028\u2029\x85'), min_size=1, max_size=40
)


@given(PLAIN.filter(str.strip), PLAIN.filter(str.strip))
def test_what_is_written_is_read_back(system, stop):
    text = modelfile.write("model-Q8_0.gguf", "{{ .Prompt }}\n", system.strip(), [stop.strip()], {"temperature": 0.0})
    assert modelfile.parse(text) == [
        ("FROM", "./model-Q8_0.gguf"),
        ("TEMPLATE", "{{ .Prompt }}\n"),
        ("SYSTEM", system.strip()),
        ("PARAMETER stop", stop.strip()),
        ("PARAMETER temperature", "0"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "FROM once"),
        ("FROM a\nFROM b", "FROM once"),
        ("FROM a\nFORM b", "Modelfile:2: 'FORM' is no instruction"),
        ("FROM", "FROM has no argument"),
        ("FROM a\nPARAMETER warmth 1", "no parameter 'warmth'"),
        ("FROM a\nPARAMETER temperature hot", "expected float"),
        ("FROM a\nPARAMETER num_ctx 1.5", "expected int"),
        ("FROM a\nPARAMETER stop", "no value"),
        ('FROM a\nSYSTEM """never\nclosed', "Modelfile:2: three quotes"),
    ],
)
def test_what_the_grammar_does_not_allow_is_named(text, said):
    with pytest.raises(DataError, match=said):
        modelfile.parse(text)


def test_comments_empty_lines_and_small_letters_are_allowed():
    assert modelfile.parse('# a comment\n\nfrom ./a.gguf\nsystem "be brief"\n') == [
        ("FROM", "./a.gguf"),
        ("SYSTEM", "be brief"),
    ]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(DataError):
        assert sum(name == "FROM" for name, _ in modelfile.parse(text)) == 1
