"""The workflows of .github: they parse, run every Python that the package names, and may do no more than they need."""

import re
import shlex
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).parents[1]
FILES = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
WORKFLOWS = {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
# The jobs that may write, and what.
WRITERS = {("docs", "publish"): {"pages", "id-token"}, ("release", "publish"): {"id-token"}}


def steps(name: str) -> list[dict]:
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def test_there_are_tests_a_weekly_run_a_release_and_docs():
    assert FILES.keys() == {"tests", "weekly", "release", "docs"}
    triggers = {name: workflow[True] for name, workflow in WORKFLOWS.items()}  # YAML 1.1 takes "on" for true
    assert triggers["release"] == {"push": {"tags": ["v*"]}} and "schedule" in triggers["weekly"]
    assert "pull_request" in triggers["tests"] and "pull_request_target" not in str(triggers)


def test_every_python_of_the_classifiers_is_tested_and_the_oldest_with_the_oldest_versions():
    matrix = WORKFLOWS["tests"]["jobs"]["ranges"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS and f'requires-python = ">={PYTHONS[0]}"' in PYPROJECT
    assert matrix["resolution"] == ["highest"]
    assert matrix["include"] == [{"python": PYTHONS[0], "resolution": "lowest-direct"}]
    used = {
        str(step["with"]["python-version"]) for name in FILES for step in steps(name) if "setup-python" in str(step)
    }
    assert used - set(PYTHONS) == {"${{ matrix.python }}"}


@pytest.mark.parametrize("name", FILES)
def test_actions_are_of_one_version_and_jobs_end(name):
    actions = [step["uses"] for step in steps(name) if "uses" in step]
    assert actions and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in actions), actions
    for step in steps(name):
        if "run" in step and "pip install" in step["run"] and "-e" not in step["run"]:
            packages = shlex.split(step["run"])[2:]
            assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in packages), packages
    assert all(job["timeout-minutes"] <= 120 for job in WORKFLOWS[name]["jobs"].values())


@pytest.mark.parametrize("name", FILES)
def test_only_what_publishes_may_write(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job, content in WORKFLOWS[name]["jobs"].items():
        allowed = content.get("permissions", {})
        assert set(allowed) == WRITERS.get((name, job), set()) and set(allowed.values()) <= {"write"}
    checkouts = [step for step in steps(name) if "checkout" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert "secrets." not in FILES[name].read_text(encoding="utf-8")


def test_release_reads_the_version_where_it_is():
    (check,) = [step["run"] for step in steps("release") if "name" in step and "run" in step]
    pattern = re.search(r"sed -n 's/(.+)/\\1/p' (\S+)\)", check)
    source = (ROOT / pattern[2]).read_text(encoding="utf-8")
    (version,) = re.findall(pattern[1].replace(r"\(", "(").replace(r"\)", ")"), source, re.M)
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
