"""Names of any script in pictures: in DejaVu Sans, which comes with matplotlib, or what this machine has beside it."""

import functools
import re
import warnings
from collections.abc import Set
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

from hf_robustvit.files import replacing


# The first are Linux's, then come Windows' and macOS'.
_OF_OTHER_SCRIPTS = re.compile(
    r"Noto Sans CJK|Source Han Sans|WenQuanYi|Droid Sans Fallback|Microsoft YaHei|Yu Gothic|Malgun Gothic|Nirmala UI|"
    r"Leelawadee UI|Hiragino Sans|Apple SD Gothic Neo|Arial Unicode MS"
)


def write_figure(figure: Figure, path: Path, **how: Any) -> None:
    """`figure.savefig`, whole or not at all; a character that no font has is an empty box, and nothing is said of it.

    Args:
        figure: Its texts fall back to this machine's fonts from here on.
        path: The file to write.
        how: What else `savefig` takes.
    """
    for text in figure.findobj(Text):
        text.set_fontfamily([*dict.fromkeys([*text.get_fontfamily(), *_fallbacks()])])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support", UserWarning)
        with replacing(path) as temporary:
            figure.savefig(temporary, **how)


def caption_font(size: float, text: str = "") -> ImageFont.FreeTypeFont:
    """The font for a caption that Pillow draws, which takes one alone: that with the most of a text's characters.

    Args:
        size: In points.
        text: What is written; DejaVu Sans has accents and some alphabets, Pillow's own font neither.
    """
    paths = map(font_manager.findfont, ["DejaVu Sans", *_fallbacks()])
    best = max(paths, key=lambda path: sum(ord(character) in _characters(path) for character in text))
    return ImageFont.truetype(best, size)


@functools.cache
def _fallbacks() -> list[str]:
    """The installed families that have what DejaVu Sans lacks; matplotlib's list may also have some that are gone."""
    fonts = [font for font in font_manager.fontManager.ttflist if _OF_OTHER_SCRIPTS.match(font.name)]
    return sorted({font.name for font in fonts if Path(font.fname).is_file()})


@functools.cache
def _characters(path: str) -> Set[int]:
    return FT2Font(path).get_charmap().keys()
