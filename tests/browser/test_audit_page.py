"""The page of an audit in a real browser: it fits a phone, sorts, shows pictures, and takes hostile names as text."""

import pytest
from photo_folder import save_model, save_photos

import run_eval
from hf_robustvit.commands.settings import parse_settings


HOSTILE = "<img src=x onerror=document.title='owned'>"
CLASSES = (HOSTILE, "bee", "a class with a rather long name, as ImageNet's are")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    save_model(root / "model", CLASSES)
    save_photos(root / "pets", CLASSES, count=3)
    flags = ("--audit", "--model", root / "model", "--dataset", root / "pets", "--output_dir", root / "out")
    arguments = [str(flag) for flag in (*flags, "--num_workers", 0)]
    run_eval.main(*parse_settings(run_eval.EvaluationArguments, arguments=arguments))
    return root / "out" / "audit.html"


@pytest.mark.parametrize("width", [1200, 390])
def test_fits_the_screen_and_shows_its_pictures(page_path, open_page, width):
    page = open_page(page_path, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.locator(".card img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths and set(widths) == {32} and len(widths) % 4 == 0
    assert page.locator(".verdict strong").inner_text() == "These photos cannot tell."
    assert page.locator("#figures .bar:visible").count() == (10 if width > 600 else 0)
    assert page.locator("[onerror]").count() == 0 and HOSTILE in page.locator("#classes tbody th").all_inner_texts()


def test_classes_are_sorted_by_a_click(page_path, open_page):
    page = open_page(page_path)
    page.locator("#classes th button").nth(1).click()
    values = page.locator("#classes tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].dataset.value)")
    values = [float(value or "-inf") for value in values]  # a dash comes last
    assert len(values) == 3 and values == sorted(values, reverse=True)
