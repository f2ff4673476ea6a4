# Everything a developer does. Needs only make and Python 3.11 or newer with venv and pip; each target makes .venv first
# if it is missing or older than its lock file.
#
#   make lqr ARGS="--system double_integrator --alpha 0.1 0.5"     arguments for the command
#   make experiment NAME=theorem2 ARGS="--seeds 4"                 one of the folders of experiments/
#   make test ARGS="-k riccati"                                    arguments for pytest

.DEFAULT_GOAL := help
.PHONY: help lqr experiment bench test test-all check lint types docs linkcheck format peers lock clean

PYTHON ?=
ARGS ?=
unexport PYTHONDONTWRITEBYTECODE  # without bytecode imports take three times as long
BIN := .venv/bin
READY := .venv/ready

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lqr: OUT := $(if $(findstring --out,$(ARGS)),,--out out/lqr-$(shell date +%Y%m%d-%H%M%S))
lqr: $(READY)  ## the main job: train on max-entropy LQR, draw the figures into a new folder under out/
	@$(if $(OUT),echo "results go to $(lastword $(OUT))";) $(BIN)/entroflow lqr $(OUT) $(ARGS)

experiment: $(READY)  ## run an experiment, NAME=theorem2, into a new folder under out/; ARGS="--help" lists its options
	@$(if $(NAME),,$(error name a folder of experiments/, as in make experiment NAME=theorem2))\
	$(BIN)/python -m experiments.$(NAME).run $(ARGS)

bench: $(READY)  ## measure speed, ours or beside other libraries (see benchmarks/README.md)
	$(BIN)/python -m benchmarks.run $(ARGS)

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: $(READY)  ## run the tests, the slow ones included
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "" $(ARGS)

check: lint  ## everything that must pass before a commit: lint, types, tests, among which the site is built
	@$(MAKE) --no-print-directory --jobs=2 types test

lint: $(READY)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/pyright

docs: $(READY)  ## build the site into .cache/site, running its tutorials, without warnings
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto -b html docs .cache/site $(ARGS)

linkcheck: $(READY)  ## ask whether the site's external links answer; needs the internet
	$(BIN)/python -m sphinx --keep-going --quiet -b linkcheck -D nb_execution_mode=off docs .cache/links $(ARGS)

format: $(READY)  ## format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

peers: $(READY)  ## the environment that `make bench` times other libraries in: .cache/peers
	$(BIN)/python -m venv .cache/peers
	.cache/peers/bin/python -m pip install --quiet torch==2.13.0 # first, or the next line brings CUDA along
	.cache/peers/bin/python -m pip install --quiet stable-baselines3==2.9.2 sbx-rl==0.28.0 jax==0.10.2 "gymnasium[mujoco]==1.4.0"

lock: $(READY)  ## write requirements-dev.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --group dev --extra export --extra mjx --extra mujoco --extra ray --extra tensorboard --extra video --custom-compile-command "make lock" --output-file requirements-dev.lock pyproject.toml

clean:  ## remove the environment and all caches; out/ stays
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis dist build
	find src tests examples experiments benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate must be new enough and able to make environments (some systems ship Python without ensurepip). Bytecode is
# left to the imports: writing that of every module takes half of the installation's time.
$(READY): pyproject.toml requirements-dev.lock
	@set -e; found=; \
	for python in $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14 python); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "entroflow needs Python 3.11 or newer with venv and pip; $(if $(PYTHON),$(PYTHON) is not,none was found on PATH). Name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "making .venv with $$($$found --version) (once; takes a minute or two)"; \
	$$found -m venv .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --requirement requirements-dev.lock; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $@
