"""The report in a real browser: it sorts and filters, fits a phone, and takes hostile names as text."""

import shutil

import pandas as pd
import pytest
from PIL import Image, ImageOps
from planted_benchmarks import photographs, plain_logits, vit

import run_eval
from hf_robustvit.commands.settings import parse_settings


HOSTILE = "<img src=x onerror=document.title='owned'>"
CLASSES = (HOSTILE, "c1\"' onclick=alert(1) {{ 7 * 7 }}", "c2", "c3")


def evaluate(root, output_dir, *flags):
    flags = ("--model", root / "after", "--dataset", root / "pets", "--output_dir", output_dir, *flags)
    arguments = [str(flag) for flag in (*flags, "--num_workers", 0, "--report")]
    run_eval.main(*parse_settings(run_eval.EvaluationArguments, arguments=arguments))
    return output_dir / "report.html"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models whose classes have hostile names, and images of hostile names."""
    root = tmp_path_factory.mktemp("report")
    for name, seed in (("before", 0), ("after", 1)):
        model, image_processor = vit(4, seed=seed)
        model.config.id2label = dict(enumerate(CLASSES))
        model.config.label2id = {label: index for index, label in enumerate(CLASSES)}
        model.save_pretrained(root / name)
        image_processor.save_pretrained(root / name)
    paths = photographs(root / "all", count=24)
    model, _ = vit(4, seed=1)
    for path, logits in zip(paths, plain_logits(model, paths, "checkpoint"), strict=True):
        number = int(path.stem)
        folder = root / "pets" / "images" / CLASSES[int(logits.argmax()) if number % 3 else number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{path.stem}{HOSTILE}{path.suffix}")
    return root


@pytest.fixture(scope="module")
def report(root):
    return evaluate(root, root / "out", "--baseline", root / "before")


def test_sorts_by_keyboard_and_mouse(report, open_page):
    page = open_page(report)
    header = page.locator("#classes th", has_text="After").first
    header.locator("button").focus()
    page.keyboard.press("Enter")
    values = page.locator("#classes tbody tr").evaluate_all("rows => rows.map(row => +row.cells[4].dataset.value)")
    assert header.get_attribute("aria-sort") == "descending" and len(set(values)) > 1
    assert values == sorted(values, reverse=True)
    header.locator("button").click()
    turned = page.locator("#classes tbody tr").evaluate_all("rows => rows.map(row => +row.cells[4].dataset.value)")
    assert header.get_attribute("aria-sort") == "ascending" and turned == sorted(values)


def test_filters_by_words(report, open_page):
    page = open_page(report)
    page.fill("#classes-filter", "PETS c2")
    assert page.locator("#classes tbody tr:visible th").all_inner_texts() == ["c2"]
    assert page.locator("#classes-count").inner_text() == "1 of 4 rows"


def test_hostile_names_are_text(report, open_page):
    page = open_page(report)
    assert page.title().startswith(str(report.parent.parent)) and page.locator("[onerror], [onclick]").count() == 0
    assert set(CLASSES) == set(page.locator("#classes tbody th").all_inner_texts())
    shown = page.locator(".card .name").all_inner_texts()
    assert shown and all(HOSTILE in name for name in shown)


def test_pictures_load_and_a_phone_needs_no_sideways_scrolling(report, open_page):
    page = open_page(report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = page.locator(".card img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths and set(widths) == {32} and len(widths) % 3 == 0


def test_the_confusions_are_those_of_the_predictions_and_fit_a_phone(report, open_page):
    page = open_page(report, width=390)
    table = page.locator("table.confusion")
    names = [name.split(" ", 1)[1] for name in table.locator("tbody th").all_inner_texts()]
    assert 2 <= len(names) <= 4 and set(names) <= set(CLASSES)
    assert table.evaluate("table => table.parentElement.scrollWidth <= table.parentElement.clientWidth")
    frames = [
        pd.read_parquet(folder / "pets.predictions.parquet") for folder in (report.parent / "baseline", report.parent)
    ]
    for row, true in zip(table.locator("tbody tr").all(), names, strict=True):
        for cell, guessed in zip(row.locator("td").all(), [*names, None], strict=True):
            counts = []
            for frame in frames:
                guesses = [CLASSES[indices[0]] for indices in frame["top5_indices"][frame["class_name"] == true]]
                counts.append(sum(guess == guessed if guessed else guess not in names for guess in guesses))
            wanted = "→".join(map(str, counts)) if counts[0] != counts[1] else str(counts[0] or "")
            assert cell.inner_text() == wanted
            good = (counts[1] > counts[0]) == (true == guessed)
            colour = set(cell.get_attribute("class").split()) & {"up", "down"}
            assert colour == (set() if counts[0] == counts[1] else {"up"} if good else {"down"})


def test_the_tables_fit_a_wide_screen_and_a_fall_of_deletion_is_good(root, open_page, tmp_path):
    shutil.copytree(root / "pets", tmp_path / "masked")
    for path in (tmp_path / "masked" / "images").glob("*/*"):
        target = tmp_path / "masked" / "masks" / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            Image.linear_gradient("L").resize(ImageOps.exif_transpose(image).size).point(
                lambda v: 255 * (v > 127)
            ).save(target)
    flags = ("--dataset", tmp_path / "masked", "--baseline", root / "before")
    page = open_page(evaluate(root, tmp_path / "out", *flags))
    for box in page.locator(".box").all():
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    colours = {}
    for row in page.locator("#changes tbody tr").all():
        cell = row.locator("td").nth(5)
        change = float(cell.get_attribute("data-value"))
        colours[row.locator("td").first.inner_text()] = (change > 0, "up" in cell.get_attribute("class"))
    assert colours["insertion"][0] == colours["insertion"][1]
    assert colours["deletion"][0] != colours["deletion"][1]


def test_one_model_alone(root, open_page):
    page = open_page(evaluate(root, root / "alone"))
    assert "Right and wrong images" in page.locator("main").inner_text()
    assert page.locator("#summary tbody tr").count() >= 2
