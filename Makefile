# Every target makes .venv first (docs: .venv-docs) when it is missing or older than the pinned requirements.
PYTHON ?= python3
BIN := .venv/bin

# Models of a few layers run fastest on one thread; the second core reads images.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE = 1

.PHONY: demo test lint docs

demo: .venv/installed
	rm -rf outputs/demo
	$(BIN)/python run_finetune.py examples/cutouts.yaml
	$(BIN)/python run_eval.py --model outputs/demo/model --baseline cutouts-vit --dataset cutouts --output_dir outputs/demo/results --report --update_card

test: .venv/installed
	$(BIN)/python -m pytest -n 2 -q

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Into outputs/site, for file:// or any server. The variable silences the notice that Material ends in May 2027.
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv-docs/installed: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@
