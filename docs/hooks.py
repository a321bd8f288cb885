"""What `make docs` shows from outside docs/ (README.md, linked files), and how it reads pages and docstrings."""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "index.md": "README.md",
    **dict.fromkeys(["CONTRIBUTING.md", "benchmarks/RESULTS.md", "examples/photos.yaml", "space/README.md"]),
    "hf_robustvit/cutouts/assets/LICENCES.md": None,
    "notebooks/cutouts.ipynb": None,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files, each where it lies in the repository."""
    for uri, source in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / (source or uri))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Markdown that is written for GitHub, as the site wants it.

    In the site docs/ and the repository's own folder are one. What belongs to the item of a list is indented by four
    spaces, not by the width of the item's marker.
    """
    lines, width = [], 0
    for line in markdown.splitlines():
        if marker := re.match(r"(-|\d+\.) +", line):
            width = len(marker[0])
        elif line and not line.startswith(" "):
            width = 0
        elif width and line.startswith(" " * width):
            line = " " * 4 + line[width:]
        lines.append(line)
    return "\n".join(lines).replace("](../", "](").replace("](docs/", "](").replace('src="docs/', 'src="')


class Docstrings(griffe.Extension):
    """Two habits of the package's docstrings: "Example:" in the singular, and one text for several names."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Say it as griffe reads it: a space would end the name, and "()" is no type."""
        if obj.docstring:
            text = obj.docstring.value.replace("Example:\n", "Examples:\n")
            names = re.compile(r"^ +\w+(, \w+)+(?=: )", re.M)
            text = names.sub(lambda found: found[0].replace(", ", ",\N{NO-BREAK SPACE}") + " ()", text)
            obj.docstring.value = text
