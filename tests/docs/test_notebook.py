"""notebooks/cutouts.ipynb: its cells in order in a process of their own, in an empty folder, with a local Hub."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import TOKEN, LoopbackHub


ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "notebooks" / "cutouts.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TINY = """
PHOTOS = 60
NUM_CLASSES, SAMPLES_PER_CLASS, EPOCHS = 2, 2, 1
TEST = "photos"
HUB_REPO = "you/bugs"
"""
# What IPython makes of a line with "!", for the one program that is called so; a failure ends the run.
SHELL = """
import shlex, subprocess, sys
def shell(line):
    program, *arguments = shlex.split(line)
    assert program == "hf-robustvit", line
    subprocess.run([sys.executable, "-m", "hf_robustvit", *arguments], check=True)
"""


def as_script(cells: list[dict]) -> str:
    """The cells with tiny settings as a program; the installation is left out."""
    parts = [SHELL]
    for cell in cells:
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            assert re.findall(r"^[A-Z_, ]+ = ", source, re.M) == re.findall(r"^[A-Z_, ]+ = ", TINY, re.M)
            source = TINY
        source = re.sub(r"^%pip install -q hf-robustvit$", "", source, flags=re.M)
        parts.append(re.sub(r"^( *)!(.+)$", lambda line: f"{line[1]}shell(f{line[2]!r})", source, flags=re.M))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder after the last cell, what was printed, and what is on the Hub."""
    folder = tmp_path_factory.mktemp("notebook")
    with LoopbackHub(folder / "hub") as hub:
        environment = hub.environment(TOKEN, PYTHONPATH=str(ROOT), HF_HOME=str(folder / "cache"))
        for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
            environment.pop(name, None)
        command = [sys.executable, "-c", as_script(CELLS) + "\nprint('SHARES', shares)"]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return folder, run.stdout, hub.files("you/bugs")


def test_every_step_leaves_its_result(done):
    folder, printed, _ = done
    assert json.loads((folder / "out/audit/audit.json").read_text())["verdict"] in ("background", "unclear", "object")
    assert "masks accepted" in printed and "IoU" in printed
    for name in ("masks/contact_sheet.png", "model/relevance.png", "results/report.html"):
        assert (folder / "out" / name).stat().st_size > 1000
    assert printed.count("| photos ") >= 2  # of the command and of results.md
    shares = re.search(r"SHARES {'cutouts-vit': ([\d.]+), 'out/model': ([\d.]+)}", printed)
    assert all(0 < float(share) < 1 for share in shares.groups()) and shares[1] != shares[2]


def test_the_model_is_pushed_with_its_results(done):
    *_, files = done
    assert {"model.safetensors", "README.md", "results/photos.json", "results/comparison.json"} <= files.keys()
    assert "Before is cutouts-vit, after is this model" in ModelCard(files["README.md"].decode()).text


def test_the_notebook_is_clean_and_asks_for_nothing_unless_told():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    (settings,) = ("".join(cell["source"]) for cell in CELLS if cell["metadata"].get("tags") == ["parameters"])
    assert re.search(r"^HUB_REPO = None\b", settings, re.M)


def test_the_settings_are_those_of_the_demo():
    (command,) = re.findall(
        r"^!hf-robustvit finetune (.+)$", "\n".join("".join(cell["source"]) for cell in CELLS), re.M
    )
    flags = re.findall(r"--(\w+) (\S+)", command)
    demo = dict(re.findall(r"^(\w+): (\S+)$", (ROOT / "examples/cutouts.yaml").read_text(), re.M))
    filled = {"{NUM_CLASSES}": "30", "{SAMPLES_PER_CLASS}": "90", "{EPOCHS}": "4"}
    found = {name: filled.get(value, value) for name, value in flags}
    assert found == demo | {"output_dir": "out/model", "num_classes": "30"}
