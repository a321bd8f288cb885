"""The pages: they quote and list what is in the code, their links lead somewhere, and the README stays short."""

import ast
import importlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import hf_robustvit
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.losses import LOSSES


ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
QUOTED = re.findall(r"^> `(.+)`$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
DOCUMENTED = re.findall(r"^::: (.+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)


def texts_of(source: str) -> set[str]:
    """The strings in a module, with … where an f-string has a value."""
    texts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            texts.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    return texts


@pytest.fixture(scope="module")
def texts():
    files = (ROOT / "hf_robustvit").rglob("*.py")
    return set().union(*(texts_of(file.read_text(encoding="utf-8")) for file in files))


@pytest.mark.parametrize("sentence", QUOTED)
def test_troubleshooting_quotes_what_the_code_says(texts, sentence):
    assert any(sentence in text for text in texts)


def test_troubleshooting_has_quotes():
    assert len(QUOTED) >= 15 and len(set(QUOTED)) == len(QUOTED)
    assert texts_of("f'--a {b!r} is ' f'{c:g}: no'; 'plain'") >= {"--a … is …: no", "plain"}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_api_page_names_what_there_is(name):
    room, _, member = name.rpartition(".")
    assert getattr(importlib.import_module(room), member).__doc__


def test_the_api_page_has_what_the_package_offers():
    names = {name.rpartition(".")[2] for name in DOCUMENTED}
    assert names >= {*hf_robustvit.__all__, *(loss.__name__ for loss in LOSSES.values())}


def test_the_page_of_experiments_has_all():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (DOCS / "experiments.md").read_text(encoding="utf-8"), re.M)
    assert rows == list(EXPERIMENTS)


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_advice_rests_on_figures_of_the_pages_that_measure(page):
    measured = [DOCS / name for name in ("audit.md", "cutouts.md", "masks.md", "photos.md")]
    texts = [path.read_text(encoding="utf-8") for path in [*measured, ROOT / "benchmarks" / "RESULTS.md"]]
    figures = re.findall(r"[+-]?\d+\.\d+(?: \[[^]]+\])?", (ROOT / page).read_text(encoding="utf-8"))
    figures = [figure for figure in figures if figure not in ("3.10", "2206.01161")]  # Python, arXiv
    assert len(figures) > 20
    assert [figure for figure in figures if not any(figure in text for text in texts)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """As GitHub follows them; those to headings, and the site's, are checked by `make docs`."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r'\]\(([^)]+)\)|src="([^"]+)"|<(https?:[^>]+)>', text):
        link = "".join(link)
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), link
            assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.hostname) and not re.search(r"\s", link), link
        elif parts.path:
            assert (page.parent / parts.path).exists(), link


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 90
