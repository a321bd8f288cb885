"""Composites of a folder of one's own: their rows, what is left out, and run_eval.py on them."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from photo_folder import save_model, save_photos
from PIL import Image

import run_eval
from hf_robustvit.builders import BENCHMARKS, benchmark_names, load_benchmark_rows
from hf_robustvit.builders.composites import load_composites
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.data.composites import GRIDS, CompositeRenderer
from hf_robustvit.data.pairs import undecoded
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.pictures import denormalize
from hf_robustvit.evaluation.run import BenchmarkData


NAMES = ["composites-location", "composites-rotation", "composites-size", "composites-background"]
CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def photos(tmp_path):
    """15 photos of three classes whose objects can be taken."""
    return save_photos(tmp_path / "photos", CLASSES)


@pytest.fixture
def backgrounds(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(6):
        path = tmp_path / "backgrounds" / ("sea" if number % 2 else "city") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(path)
    (tmp_path / "backgrounds" / "sources.csv").write_text("author")
    return tmp_path / "backgrounds"


def spoil(photos: Path) -> dict[str, int]:
    """Spoil some photos, each in its own way; how many objects are left out for it."""
    masks = photos / "masks"
    (masks / "ant" / "0.png").unlink()
    (masks / "ant" / "1.png").write_text("no picture")
    for name, box in {"bee/0": (1, 1, 3, 3), "bee/1": None, "cow/0": (1, 1, 39, 39), "cow/1": (0, 5, 20, 25)}.items():
        mask = Image.new("L", (40, 40))
        if box:
            mask.paste(255, box)
        mask.save(masks / f"{name}.png")
    return {"no_mask": 1, "unreadable": 1, "too_small": 2, "too_large": 1, "cut_off": 1}


def test_one_factor_runs_over_its_grid_and_all_else_stays(photos, backgrounds):
    for name, (factor, grid) in zip(NAMES, GRIDS.items(), strict=False):
        rows = load_benchmark_rows(name, str(photos), backgrounds=str(backgrounds)).rows
        frame = rows.remove_columns(["image", "mask"]).to_pandas()
        assert (
            len(frame) == 15 * len(grid)
            and frame["image_id"].is_unique
            and rows.features["label"].names == list(CLASSES)
        )
        assert (frame["factor"] == factor).all() and frame["background_mask"].isna().all()
        for object_id, same in frame.groupby("object", sort=False):
            assert same.index[-1] - same.index[0] == len(grid) - 1
            assert same["background"].nunique() == 1
            assert list(same["value"]) == list(grid)
            assert same[["area", "rotation", "x", "y"]].to_dict("records") == list(grid.values())
            assert list(same["image_id"]) == [f"{object_id}|{factor}|{value}" for value in grid]
    assert set(frame["background"]) <= {f"{'sea' if n % 2 else 'city'}/{n}.jpg" for n in range(6)}


def test_several_backgrounds_with_the_object_where_it_is(photos, backgrounds):
    frame = load_composites(NAMES[3], str(photos), str(backgrounds)).rows.remove_columns(["image", "mask"]).to_pandas()
    assert len(frame) == 15 * 4 and (frame["value"] == frame["background"]).all()
    assert (frame.groupby("object")["background"].nunique() == 4).all()
    assert np.allclose(frame[["area", "rotation", "x", "y"]], [(18 / 40) ** 2, 0, 21 / 40, 17.5 / 40])
    # The same object has the same first background in every set.
    first = (
        load_composites(NAMES[0], str(photos), str(backgrounds))
        .rows.to_pandas()
        .groupby("object")["background"]
        .first()
    )
    assert first.equals(frame.groupby("object")["background"].first())


def test_without_a_folder_other_classes_are_the_backgrounds(photos):
    frame = load_composites(NAMES[0], str(photos)).rows.remove_columns(["image", "mask"]).to_pandas()
    assert (frame["background"].str[:3] != frame["object"].str[:3]).all()
    assert (frame["background_mask"].str.contains("/masks/")).all()


def test_objects_are_left_out_and_counted_by_their_reasons(photos, backgrounds, caplog):
    left_out = spoil(photos)
    with caplog.at_level(logging.INFO):
        found = load_composites(NAMES[2], str(photos), str(backgrounds))
    assert found.left_out == left_out and len(found.rows) == 9 * 7
    assert "composites-size: the objects of 9 of 15 photographs are taken; 1 without a mask, 1 with an" in caplog.text
    assert "1 cut off, over 10% of the outline on the image's border" in caplog.text

    kept = load_composites(NAMES[2], str(photos), str(backgrounds), keep=lambda image_id: image_id.startswith("bee"))
    assert kept.left_out == {"too_small": 2} and set(kept.rows["object"]) == {f"bee/{n}.png" for n in (2, 3, 4)}
    full = found.rows.remove_columns(["image", "mask"]).to_pandas().set_index("image_id")
    kept = kept.rows.remove_columns(["image", "mask"]).to_pandas().set_index("image_id")
    assert kept.equals(full.loc[kept.index])


def test_a_changed_mask_is_judged_again(photos, backgrounds):
    assert not load_composites(NAMES[2], str(photos), str(backgrounds)).left_out
    left_out = spoil(photos)
    assert load_composites(NAMES[2], str(photos), str(backgrounds)).left_out == left_out


def test_masks_are_read_with_the_flags(photos):
    for path in (photos / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            Image.eval(mask, lambda value: 1 if value else 2).save(path)  # 1 the object, 2 its background
    with pytest.raises(
        UserError,
        match="of 15 photographs, 15 with an image or mask that cannot be used \\(first: .*--mask_foreground",
    ):
        load_composites(NAMES[0], str(photos))
    assert len(load_composites(NAMES[0], str(photos), reading=MaskReading(mask_foreground=["1"])).rows) == 15 * 9


DIGEST = """
import hashlib, sys
from hf_robustvit.builders.composites import load_composites
from hf_robustvit.data.pairs import undecoded
digest = hashlib.sha256()
for name in sys.argv[2:]:
    found = load_composites(name, sys.argv[1])
    for row in undecoded(found.rows):
        pair = found.render(row, (32, 48))
        digest.update(pair.image.tobytes() + pair.mask.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_make_the_same_bytes(photos):
    root = Path(run_eval.__file__).parent
    command = [sys.executable, "-c", DIGEST, str(photos), *NAMES[2:]]
    other = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()[-1]
    digest = hashlib.sha256()
    for name in NAMES[2:]:
        found = load_composites(name, str(photos))
        for row in undecoded(found.rows):
            pair = found.render(row, (32, 48))
            digest.update(pair.image.tobytes() + pair.mask.tobytes())
    assert digest.hexdigest() == other


def test_the_group():
    assert benchmark_names(["composites"], for_imagenet=True) == NAMES == [n for n in BENCHMARKS if "composites" in n]
    for for_imagenet in (True, False):
        assert not set(benchmark_names(["all"], for_imagenet)) & set(NAMES)


def test_mistakes_are_told(photos, backgrounds, tmp_path):
    with pytest.raises(UserError, match="--dataset composites needs --data_dir: .*images/<class>"):
        load_benchmark_rows(NAMES[0])
    with pytest.raises(UserError, match="--backgrounds .*nowhere does not exist"):
        load_benchmark_rows(NAMES[0], str(photos), backgrounds=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--backgrounds .*empty holds no images"):
        load_benchmark_rows(NAMES[0], str(photos), backgrounds=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="none of the photographs that are kept has a usable object"):
        load_composites(NAMES[0], str(photos), keep=lambda _: False)
    one = save_photos(tmp_path / "one", ("ant",))
    with pytest.raises(UserError, match="are of one class.*with --backgrounds"):
        load_composites(NAMES[0], str(one))
    assert load_composites(NAMES[0], str(one), str(backgrounds)).rows
    for path in (one / "masks").rglob("*.png"):
        Image.new("L", (40, 40)).save(path)
    with pytest.raises(
        UserError, match="no object that can be cut out; of 5 photographs, 5 under 2% of the image\\.$"
    ):
        load_composites(NAMES[0], str(one))
    shutil.rmtree(one / "masks")
    with pytest.raises(UserError, match="one has no folder 'masks'.*hf-robustvit masks makes them"):
        load_composites(NAMES[0], str(one))


def evaluate(*flags) -> None:
    run_eval.main(*parse_settings(run_eval.EvaluationArguments, MaskReading, arguments=list(map(str, flags))))


def test_run_eval_on_the_four_sets(photos, backgrounds, tmp_path, capsys):
    left_out = spoil(photos)
    model, out = save_model(tmp_path / "model", (*CLASSES, "dog")), tmp_path / "out"
    flags = ("--model", model, "--data_dir", photos, "--num_workers", 0)
    evaluate(
        *flags, "--dataset", "composites", "--output_dir", out, "--backgrounds", backgrounds, "--oracle", "--report"
    )
    for name, per_object in zip(NAMES, (9, 12, 7, 4), strict=True):
        result = json.loads((out / f"{name}.json").read_text())
        assert result["num_images"] == 9 * per_object and result["top1_oracle"] is not None
        assert result["protocol"]["objects"] == 9 and result["protocol"]["left_out"] == left_out
        assert result["mean_iou"] is None and result["top1_swapped_background"] is None
        predictions = pd.read_parquet(out / f"{name}.predictions.parquet")
        assert {"object", "factor", "value"} <= set(predictions) and (
            predictions.groupby("object").size() == per_object
        ).all()
        with Image.open(out / "composites" / f"{name}.png") as sheet:
            assert sheet.width == 120 * per_object and sheet.height == 8 * 148
    assert {path.name for path in (out / "curves").iterdir()} == {
        f"{n}.{e}" for n in NAMES[:3] for e in ("csv", "png")
    }
    curve = pd.read_csv(out / "curves" / "composites-size.csv")
    assert list(curve["area"]) == list(GRIDS["size"]) and (curve["n"] == 9).all()
    assert (out / "report.html").read_text().count('alt="Accuracy over the factor of') == 3

    evaluate(*flags, "--dataset", "composites-size", "--output_dir", tmp_path / "own")
    own = json.loads((tmp_path / "own" / "composites-size.json").read_text())
    assert own["data"] != json.loads((out / "composites-size.json").read_text())["data"] and own["num_images"] == 63


def test_what_the_model_is_given_is_what_was_rendered(photos, backgrounds, tmp_path):
    checkpoint = Checkpoint.load(str(save_model(tmp_path / "model", CLASSES)), None)
    found = load_composites(NAMES[1], str(photos), str(backgrounds))
    images = BenchmarkData.for_model(found, checkpoint.model.config).images(checkpoint, "paper", 4, with_masks=True)
    row = undecoded(found.rows)[20]
    pair, item = found.render(row, (32, 32)), images[20]
    assert item["readable"] and np.array_equal(item["mask"], np.asarray(pair.mask) > 127)
    shown = denormalize(item["pixel_values"][None], images.image_processor)[0] * 255
    assert np.abs(shown - np.asarray(pair.image)).max() < 0.01

    Path(row["background_image"]).write_text("no picture")
    broken = BenchmarkImages(found.rows, images.image_processor, render=CompositeRenderer())
    assert not broken[20]["readable"] and "is not a picture" in broken.reason_unreadable(20)


def test_a_mask_that_is_all_object_is_too_large_and_not_too_small(photos, backgrounds):
    Image.new("L", (40, 40), 255).save(photos / "masks" / "cow" / "0.png")
    found = load_composites("composites-size", str(photos), str(backgrounds))
    assert found.left_out == {"too_large": 1}


def test_inverted_masks_are_refused_as_for_training(photos, backgrounds):
    for path in (photos / "masks").rglob("*.png"):
        Image.eval(Image.open(path), lambda value: 255 - value).save(path)
    with pytest.raises(UserError, match="15 of 15 masks look inverted.*--mask_foreground 0"):
        load_composites("composites-size", str(photos), str(backgrounds))
    turned = load_composites("composites-size", str(photos), str(backgrounds), MaskReading(mask_foreground=[0]))
    assert len(turned.rows.unique("object")) == 15
