"""The page on PyPI: README.md with the links and the picture of the repository, where they are relative to it."""

import re
from pathlib import Path

from setuptools import setup


REPOSITORY = "https://github.com/hf-robustvit/hf-robustvit"
readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
readme = re.sub(r"\]\((?!https?:)", f"]({REPOSITORY}/blob/main/", readme)
readme = re.sub(r'src="(?!https?:)', f'src="{REPOSITORY}/raw/main/', readme)

setup(long_description=readme, long_description_content_type="text/markdown")
