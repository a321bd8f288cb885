"""The contact sheet: which images it shows, and that their names can be told apart."""

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_robustvit.masks.contact_sheet import CAPTION, THUMBNAIL, TITLE, caption_font, contact_sheet, shortened


@pytest.mark.parametrize("count, rows, top", [(60, 10, 0), (120, 20, 0), (121, 20, TITLE)])
def test_all_are_shown_up_to_a_limit_and_a_title_says_where_not(tmp_path, count, rows, top):
    picture = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    image_ids = [f"c/{number}.png" for number in range(count)]
    dataset = datasets.Dataset.from_dict({"image": [str(picture)] * count, "image_id": image_ids})
    records = {image_id: {"accepted": True, "reason": None} for image_id in image_ids}
    contact_sheet(tmp_path / "sheet.png", dataset.cast_column("image", datasets.Image()), records, tmp_path)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * THUMBNAIL, rows * (THUMBNAIL + CAPTION) + top)
        pixels = np.asarray(sheet)
    centres = pixels[top + THUMBNAIL // 2 :: THUMBNAIL + CAPTION, THUMBNAIL // 2 :: THUMBNAIL]
    assert (centres == (255, 0, 0)).all(axis=-1).sum() == min(count, 120)
    assert (pixels[:TITLE] < 100).all(axis=-1).any() == bool(top)  # black letters


def test_names_keep_their_beginning_and_their_end():
    font = caption_font(9)
    names = [f"n01440764_tench/ILSVRC2012_val_{number:08}_as_displayed_{number}.JPEG" for number in range(3)]
    short = [shortened(name, font, 154) for name in names]
    assert len(set(short)) == 3
    for name, text in zip(names, short, strict=True):
        beginning, end = text.split("...")
        assert name.startswith(beginning) and name.endswith(end) and len(beginning) > 9 and len(end) > 9
        assert 140 < font.getlength(text) <= 154
    assert shortened("cat/1.jpg", font, 154) == "cat/1.jpg"


def test_letters_beyond_english_are_drawn():
    drawn = {letter: bytes(caption_font(9).getmask(letter)) for letter in "éüßжλ\uffff"}  # the last is an empty box
    assert len(set(drawn.values())) == len(drawn)
