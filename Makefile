# Every target makes .venv first when it is missing or older than the pinned requirements.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python run_finetune.py examples/cutouts.yaml
	HF_HUB_OFFLINE=1 $(BIN)/python run_eval.py --model outputs/demo/model --baseline cutouts-vit --dataset cutouts --output_dir outputs/demo/eval

test: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -q

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
