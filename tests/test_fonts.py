"""Names that DejaVu Sans cannot write: another font does, or they are boxes in silence."""

import re
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_robustvit import fonts


RARE = "\N{LATIN SMALL LETTER X WITH PALATAL HOOK}"  # STIXGeneral, which comes with matplotlib too, has it


@pytest.fixture
def fallbacks(monkeypatch):
    """Sets the families that are fallbacks, whatever this machine has."""
    yield lambda families: (
        monkeypatch.setattr(fonts, "_OF_OTHER_SCRIPTS", re.compile(families)),
        fonts._fallbacks.cache_clear(),
    )
    fonts._fallbacks.cache_clear()


def drawn(path, text: str) -> np.ndarray:
    """The pixels of a tick's label, which matplotlib makes last."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().set_yticks([0.5], [text])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fonts.write_figure(figure, path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_a_character_that_no_font_has_is_a_box_in_silence(tmp_path, fallbacks, caplog, capfd):
    fallbacks("no such family")
    box = drawn(tmp_path / "a.png", f"a {RARE}")
    assert (box != drawn(tmp_path / "b.png", "a ")).any()
    drawn(tmp_path / "c.png", "猫 한 \N{CAT FACE}")
    assert not caplog.text and capfd.readouterr() == ("", "")


def test_a_font_of_the_machine_writes_what_dejavu_sans_lacks(tmp_path, fallbacks):
    fallbacks("no such family")
    box, letters = drawn(tmp_path / "a.png", RARE), drawn(tmp_path / "a.png", "größe")
    fallbacks("STIXGeneral$")
    assert (drawn(tmp_path / "a.png", RARE) != box).any()
    assert (drawn(tmp_path / "a.png", "größe") == letters).all()


def test_captions_take_the_font_that_has_most_of_their_characters(fallbacks):
    fallbacks("STIXGeneral$")
    families = [fonts.caption_font(9, text).getname()[0] for text in ("", "größe", f"größe {RARE}")]
    assert families == ["DejaVu Sans", "DejaVu Sans", "STIXGeneral"]
