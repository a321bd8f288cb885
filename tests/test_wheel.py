"""The wheel as a stranger gets it: built, installed alone, and run in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import hf_robustvit


ROOT = Path(__file__).parents[1]
# What git has, and nothing that lies around beside it.
PARTS = ("hf_robustvit", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with an sdist and the wheel that is built from it, by pip's own route and offline."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(dist)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (sdist,) = dist.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", dist, sdist], check=True, capture_output=True)
    return dist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder that the wheel alone is installed into."""
    folder, (wheel,) = tmp_path_factory.mktemp("site"), built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return folder


def run(installed: Path, folder: Path, *command) -> str:
    """Run Python in a folder, where the package is the installed one; what it prints."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *command]
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_the_package_alone(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = Parser().parsestr(file.read(next(name for name in names if name.endswith("METADATA"))).decode())
    assert {name.split("/")[0] for name in names} == {
        "hf_robustvit",
        f"hf_robustvit-{hf_robustvit.__version__}.dist-info",
    }
    in_repository = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_robustvit").rglob("*.*")}
    in_repository = {name for name in in_repository if "__pycache__" not in name and (ROOT / name).is_file()}
    assert in_repository <= set(names), "the package data miss files"
    with tarfile.open(sdist) as file:
        assert {name.partition("/")[2] for name in file.getnames()} >= in_repository | {"README.md", "LICENSE"}
    assert metadata["License-Expression"] == "MIT" and "Typing :: Typed" in metadata.get_all("Classifier")
    assert any("github.com" in url for url in metadata.get_all("Project-URL"))
    page = metadata.get_payload()
    assert (
        "# hf_robustvit" in page and "](https://github.com/hf-robustvit/hf-robustvit/blob/main/docs/audit.md)" in page
    )
    assert not re.search(r'\]\((?!https://)|src="(?!https://)', page)


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hf_robustvit.__version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/2206.01161"
    assert f"## {hf_robustvit.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_from_the_wheel_to_an_evaluated_model(installed, tmp_path):
    flags = ["--model", "cutouts-vit", "--dataset", "cutouts", "--num_classes", 2, "--samples_per_class", 2]
    flags += ["--max_steps", 1, "--per_device_train_batch_size", 2, "--use_cpu", "--dataloader_num_workers", 0]
    found = run(installed, tmp_path, "-c", "import hf_robustvit; print(hf_robustvit.__file__)")
    assert Path(found.strip()).parent.parent == installed
    program = installed / "bin" / "hf-robustvit"
    told = run(installed, tmp_path, program, "finetune", *flags, "--output_dir", "out")
    assert "its card is out/README.md" in told and (tmp_path / "out" / "relevance.png").is_file()
    assert f"Evaluate it with: {program} eval --model out --baseline cutouts-vit --dataset cutouts " in told
    flags = ["--model", "out", "--dataset", "cutouts-size", "--output_dir", "results"]  # the smallest of them
    told = run(installed, tmp_path, program, "eval", *flags)
    assert "| cutouts-size " in told and "The results are in results/results.md" in told
    assert json.loads((tmp_path / "results" / "cutouts-size.json").read_text())["num_images"] == 1980
    assert {path.name for path in tmp_path.iterdir()} == {"out", "results"}
