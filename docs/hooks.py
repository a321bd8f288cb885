"""What the site shows from outside docs/: README.md as its first page, and the files that pages link to."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "index.md": "README.md",
    **dict.fromkeys(["CONTRIBUTING.md", "benchmarks/RESULTS.md", "examples/photos.yaml", "space/README.md"]),
    "hf_robustvit/cutouts/assets/LICENCES.md": None,
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
