"""The demo app in a real browser: examples, uploads, the class that is explained, and strangers' files."""

import dataclasses
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_robustvit import load_classifier
from hf_robustvit.commands.app import DemoArguments, ask, example, launch, load_classifiers
from hf_robustvit.cutouts import CLASS_NAMES, render


sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
ROOT = Path(__file__).parents[2]
WAIT = 30_000  # milliseconds: two cores, shared with other tests
HTML_NAME = "<img src=x onerror='document.title=1'>"


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory):
    """The embedded model with another last layer, and with HTML for the name of its first class."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("original", "fine-tuned"):
        model, image_processor = load_classifier("cutouts-vit")
        model.config.id2label = {**model.config.id2label, 0: HTML_NAME}
        model.config.label2id = {label: index for index, label in model.config.id2label.items()}
        if name == "fine-tuned":
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for weight in model.vit.layers[-1].parameters():
                    weight += 0.05 * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(folder / name)
        image_processor.save_pretrained(folder / name)
    record = {"base_model": str(folder / "original"), "base_revision": None}
    (folder / "fine-tuned" / "robustvit.json").write_text(json.dumps(record))
    return DemoArguments(model=str(folder / "fine-tuned"))


@pytest.fixture(scope="session")
def classifiers(fine_tuned):
    return load_classifiers(fine_tuned)


@pytest.fixture(scope="session")
def address(browser, fine_tuned):
    app = launch(fine_tuned, prevent_thread_lock=True, quiet=True)
    yield app.local_url
    app.close()


@pytest.fixture
def new_page(browser):
    """Opens the app; what a page asks for elsewhere, and its errors, fail the test."""
    contexts, mistakes = [], []

    def open_page(address, **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: not is_local(request.url, address) and mistakes.append(request.url))
        page.on("console", lambda message: message.type == "error" and mistakes.append(message.text))
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.goto(address)
        expect(page.locator("#map-0 img")).to_be_visible(timeout=WAIT)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert mistakes == []


@pytest.fixture
def page(new_page, address):
    return new_page(address)


def is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def map_pixels(page, position: int) -> bytes:
    """The pixels that the browser shows as a model's map."""
    response = page.request.get(page.locator(f"#map-{position} img").get_attribute("src"))
    return Image.open(io.BytesIO(response.body())).convert("RGB").tobytes()


def expect_answers(page, classifiers, image, *class_name) -> None:
    """The page shows, for each model, the map and the five predictions that Python gives."""
    for position, classifier in enumerate(classifiers):
        answer = ask(classifier, image, *class_name)
        expect(page.locator(f"#map-{position}")).to_contain_text(f"map for {answer.explained}", timeout=WAIT)
        best = sorted(answer.confidences.items(), key=lambda item: -item[1])[:5]
        shown = page.locator(f"#predictions-{position}")
        expect(shown.locator("h2")).to_have_text(best[0][0], timeout=WAIT)
        told = re.findall(r"(\d+)%", shown.inner_text())
        assert [abs(float(percent) - 100 * share) <= 0.51 for percent, (_, share) in zip(told, best, strict=True)]
        assert map_pixels(page, position) == answer.overlay.tobytes()


def upload(page, name: str, content: bytes) -> None:
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def test_an_example_is_explained_and_then_another_class(page, classifiers):
    expect_answers(page, classifiers, example(0)[0])
    assert map_pixels(page, 0) != map_pixels(page, 1)

    page.locator("#examples button").nth(5).click()
    image, caption = example(5)
    expect(page.locator("#picture")).to_contain_text(caption, timeout=WAIT)
    expect_answers(page, classifiers, image)

    before = [map_pixels(page, position) for position in (0, 1)]
    page.locator("#target input").click()
    page.get_by_role("option", name="truck", exact=True).click()
    expect_answers(page, classifiers, image, "truck")
    assert all(map_pixels(page, position) != pixels for position, pixels in enumerate(before))

    source = page.locator("#map-1 img").get_attribute("src")
    page.locator("#rule input").click()
    page.get_by_role("option", name="LibraGrad", exact=True).click()
    expect(page.locator("#map-1 img")).not_to_have_attribute("src", source, timeout=WAIT)
    expect_answers(page, classifiers, image, "truck", "libra")


def test_an_upload_is_explained_and_the_class_is_the_predicted_one_again(page, classifiers):
    page.locator("#target input").click()
    page.get_by_role("option", name="boat", exact=True).click()
    expect(page.locator("#map-1")).to_contain_text("map for boat")
    image = render("val", 7).image
    upload(page, "cat.png", png(image))
    expect(page.locator("#picture")).to_contain_text("your picture", timeout=WAIT)
    expect(page.locator("#target input")).to_have_value("the predicted class")
    expect_answers(page, classifiers, image)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(60_000, 60_000), "far too large"),
        (png_header(9000, 8000), "9000 x 8000 pixels: make it smaller"),
        (png_header(5000, 1), "too narrow"),
        (png(render("val", 0).image)[:-2000], "truncated"),
        (b"<script>document.title=1</script>", "not an image that can be read"),
    ],
    ids=["bomb", "huge", "narrow", "truncated", "html"],
)
def test_a_bad_file_is_refused_and_the_picture_stays(page, classifiers, content, message):
    upload(page, f"{HTML_NAME}.png", content)
    expect(page.get_by_text(message)).to_be_visible(timeout=WAIT)
    expect(page.locator("#map-0")).not_to_contain_text("Error")
    assert page.title() == "What does it look at?"
    assert page.locator("img[src=x]").count() == 0
    expect_answers(page, classifiers, example(0)[0])


def test_a_file_that_is_too_heavy_is_refused_and_its_name_fetches_nothing(browser, address):
    """Gradio shows its name as HTML, without scripts; a picture in it must not come from elsewhere."""
    context = browser.new_context()
    page = context.new_page()
    failed = []
    page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    page.goto(address)
    expect(page.locator("#map-0 img")).to_be_visible(timeout=WAIT)
    upload(page, "<img src='\\\\elsewhere.example\\x' onerror='document.title=1'>.png", bytes(21_000_000))
    expect(page.get_by_text("exceed the maximum allowed size")).to_be_visible(timeout=WAIT)
    page.wait_for_function("document.querySelector('img[src*=elsewhere]')?.complete", timeout=WAIT)
    assert ("http://elsewhere.example/x", "csp") in failed
    assert page.title() == "What does it look at?"
    context.close()


def test_html_in_a_file_name_and_in_a_class_name_is_text(page, classifiers):
    image = render("val", 0).image
    upload(page, f"{HTML_NAME}.png", png(image))
    expect(page.locator("#picture")).to_contain_text("your picture", timeout=WAIT)
    page.locator("#target input").click()
    page.get_by_role("option", name=HTML_NAME, exact=True).click()
    expect(page.locator("#map-0")).to_contain_text(f"map for {HTML_NAME}", timeout=WAIT)
    expect_answers(page, classifiers, image, HTML_NAME)
    assert page.title() == "What does it look at?"
    assert page.locator("img[src=x]").count() == 0


def test_a_phone_shows_the_two_models_side_by_side(new_page, address):
    page = new_page(address, viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    original, fine_tuned = (page.locator(f"#map-{position}").bounding_box() for position in (0, 1))
    assert original["y"] == fine_tuned["y"] and original["x"] + original["width"] < fine_tuned["x"]
    page.locator("#examples button").last.tap()
    expect(page.locator("#picture")).to_contain_text("drink", timeout=WAIT)


def test_a_folders_pictures_are_the_examples(new_page, fine_tuned, classifiers, tmp_path):
    for index, name in enumerate(("cat", "<img src=x>")):
        (tmp_path / name).mkdir()
        render("val", index).image.save(tmp_path / name / "0.png")
    app = launch(dataclasses.replace(fine_tuned, examples=str(tmp_path)), prevent_thread_lock=True, quiet=True)
    page = new_page(app.local_url)
    assert page.locator("#examples button").all_inner_texts() == ["<img src=x>", "cat"]
    expect(page.get_by_text("drawn objects")).not_to_be_visible()
    expect_answers(page, classifiers, render("val", 1).image)
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#picture")).to_contain_text("cat", timeout=WAIT)
    expect_answers(page, classifiers, render("val", 0).image)
    app.close()


@pytest.fixture
def fresh_clone(browser, tmp_path):
    """The address of the app as the script starts it, in a folder without a fine-tuned model."""
    process = subprocess.Popen(
        [sys.executable, "-u", ROOT / "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    process.terminate()
    process.wait(timeout=30)


def test_the_script_in_a_fresh_clone_shows_the_original_alone(fresh_clone, new_page):
    """It starts without network and without a fine-tuned model, and says how to make one."""
    page = new_page(fresh_clone)
    expect(page.get_by_text("make demo")).to_be_visible(timeout=WAIT)
    expect(page.locator("#predictions-0 h2")).to_have_text(re.compile("|".join(CLASS_NAMES)), timeout=WAIT)
    assert page.locator("#map-1").count() == 0
