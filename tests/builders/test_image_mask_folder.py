import os
import pickle
import unicodedata

import numpy as np
import pytest
from PIL import Image

from hf_robustvit.builders import load_training_pairs
from hf_robustvit.builders.image_mask_folder import ImageMaskFolder, load_image_mask_folder, load_images
from hf_robustvit.data import MADE_MASKS, check_pairs
from hf_robustvit.errors import UserError


def save(path, size=(8, 6), value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, three images, their masks, and what lies about in folders of real people."""
    root = tmp_path / "my data"
    for name in ("dog/b c.JPG", "dog/a.png", "cat/é.webp"):
        save(root / "images" / name)
        save((root / "masks" / name).with_suffix(".png"), value=255)
    for stray in ("README.md", "dog/list.csv", "dog/.DS_Store", "dog/Thumbs.db", "dog/._a.png"):
        (root / "images" / stray).write_text("not an image")
    (root / "images" / ".cache").mkdir()
    return root


@pytest.fixture
def load(tmp_path):
    return lambda root, **options: load_image_mask_folder(root, cache_dir=tmp_path / "cache", **options)


def test_rows(folder, load):
    dataset = load(folder)
    assert dataset["image_id"][:] == ["cat/é.webp", "dog/a.png", "dog/b c.JPG"]
    assert dataset.features["label"].names == ["cat", "dog"]
    assert dataset["label"][:] == [0, 1, 1]
    row = dataset[2]
    assert row["image"].size == row["mask"].size == (8, 6)
    assert np.asarray(row["mask"]).min() == 255


def test_masks_of_other_formats_serve_and_a_png_comes_first(folder, load):
    (folder / "masks" / "dog" / "b c.png").unlink()
    for name in ("b c.jpg", "a.webp"):
        save(folder / "masks" / "dog" / name, value=0)
    lightest = {row["image_id"]: np.asarray(row["mask"]).max() for row in load(folder)}
    assert lightest == {"cat/é.webp": 255, "dog/a.png": 255, "dog/b c.JPG": 0}


def test_rows_are_the_same_with_processes_and_streamed(folder, load, tmp_path):
    ids = load(folder)["image_id"][:]
    assert load_image_mask_folder(folder, cache_dir=tmp_path / "other", num_proc=2)["image_id"][:] == ids
    stream = ImageMaskFolder(cache_dir=tmp_path / "third", data_dir=str(folder)).as_streaming_dataset(split="train")
    assert [row["image_id"] for row in stream] == ids
    assert next(iter(stream))["mask"].size == (8, 6)


def test_builder_and_data_set_survive_pickling(folder, load, tmp_path):
    assert pickle.loads(pickle.dumps(load(folder)))[0]["image"].size == (8, 6)
    builder = pickle.loads(pickle.dumps(ImageMaskFolder(cache_dir=tmp_path / "other", data_dir=str(folder))))
    builder.download_and_prepare()
    assert len(builder.as_dataset(split="train")) == 3


def test_relative_folder_is_read_after_a_change_of_directory(folder, load, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    relative = ImageMaskFolder(cache_dir=str(tmp_path / "cache"), data_dir="my data")
    relative.download_and_prepare()
    monkeypatch.chdir("/")
    assert relative.as_dataset(split="train")[0]["image"].size == (8, 6)


def test_without_masks_none_are_needed(folder, load):
    (folder / "masks").rename(folder / "elsewhere")
    dataset = load(folder, with_masks=False)
    assert set(dataset.column_names) == {"image", "label", "image_id"}
    assert len(dataset) == 3


@pytest.mark.parametrize("below", ["", "masks"])
def test_masks_from_another_folder(folder, load, tmp_path, below):
    (folder / "masks").rename(folder / "elsewhere")
    for name in ("dog/b c.png", "dog/a.png", "cat/é.png"):
        save(tmp_path / "other" / below / name, value=77)
    assert np.asarray(load(folder, masks_dir=tmp_path / "other")[0]["mask"]).min() == 77


@pytest.mark.parametrize("below", ["", "images"])
def test_images_from_another_folder(folder, load, tmp_path, below):
    (tmp_path / "other").mkdir()
    (folder / "images").rename(tmp_path / "other" / below if below else tmp_path / "other")
    assert load(folder, images_dir=tmp_path / "other")["image_id"][0] == "cat/é.webp"


def test_accents_written_in_two_ways_are_one_name(folder, load):
    composed = folder / "masks/cat/é.png"
    composed.rename(composed.with_name(unicodedata.normalize("NFD", "é.png")))
    image = folder / "images/cat/é.webp"
    image.rename(image.with_name(unicodedata.normalize("NFD", "é.webp")))
    row = load(folder)[0]
    assert row["image_id"] == unicodedata.normalize("NFC", "cat/é.webp")
    assert row["mask"].size == (8, 6)


def test_a_changed_folder_is_read_anew(folder, load):
    assert len(load(folder)) == 3
    save(folder / "images/dog/new.png")
    save(folder / "masks/dog/new.png")
    assert len(load(folder)) == 4
    save(folder / "masks/dog/new.png", value=9)
    os.utime(folder / "masks/dog/new.png", (1, 1))
    changed = load(folder)
    fingerprint = changed._fingerprint
    assert np.asarray(changed[3]["mask"]).min() == 9
    (folder / "images/dog/new.png").unlink()
    assert len(load(folder)) == 3
    assert load(folder)._fingerprint != fingerprint


def test_an_unchanged_folder_is_not_read_again(folder, load, monkeypatch):
    load(folder)
    monkeypatch.setattr(ImageMaskFolder, "_generate_examples", None)
    assert len(load(folder)) == 3


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_check_of_pairs_is_never_answered_from_a_cache(folder, load, num_proc):
    dataset = load(folder)
    assert check_pairs(dataset, num_proc=num_proc, reading=None) is dataset
    mask = folder / "masks/dog/a.png"
    mask.write_bytes(b"overwritten")
    with pytest.raises(UserError, match=f"1 mask cannot be read .first: {mask} is not a picture"):
        check_pairs(dataset, num_proc=num_proc, reading=None)


def test_a_moved_folder_is_told(folder, load):
    load(folder)
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == (
        f"The folder {folder}, which should hold the images, does not exist: was it moved or renamed?"
    )
    assert load(moved)[0]["image"].size == (8, 6)
    folder.write_text("no folder")
    with pytest.raises(UserError, match=f"{folder}, which should hold the images, is a file: name a folder"):
        load(folder)


def test_stray_entries_are_named_and_counted(folder, load, caplog):
    save(folder / "images/dog/more/deep.png")
    load(folder)
    (message,) = [record.getMessage() for record in caplog.records if "are not read" in record.getMessage()]
    # README.md, dog/list.csv and the nested folder; hidden files are not worth a word.
    assert message.startswith(f"{folder}/images: 3 entries are not <class>/<file>")
    assert f"(first: {folder}/images/README.md)" in message


def test_missing_masks_are_named_and_counted(folder, load, caplog):
    (folder / "masks/dog/a.png").unlink()
    (folder / "masks/dog/b c.png").unlink()
    with pytest.raises(UserError) as error:
        load(folder)
    found = f"2 of 3 images have no mask in {folder}/masks (first: dog/a.png)"
    assert str(error.value) == (
        f"{found}. Expected <class>/<stem of the image>.png: add the masks, remove these images, "
        "or name another folder with --masks."
    )
    dataset = load(folder, skip_missing_masks=True)
    assert dataset["image_id"][:] == ["cat/é.webp"]
    assert dataset.features["label"].names == ["cat", "dog"]
    assert f"{found}; they are left out." in caplog.text


def test_no_mask_at_all_cannot_be_skipped(folder, load, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="3 of 3 images have no mask"):
        load(folder, masks_dir=tmp_path / "empty", skip_missing_masks=True)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("images", "has no folder 'images' in it: add it, or name another one with --images_dir."),
        ("masks", "has no folder 'masks' in it: add it, or name another one with --masks."),
    ],
)
def test_missing_part(folder, load, missing, message):
    (folder / missing).rename(folder / "other name")
    with pytest.raises(UserError, match=message):
        load(folder)


def test_missing_folder_of_masks(folder, load, tmp_path):
    with pytest.raises(UserError, match=f"The folder {tmp_path}/nowhere, which should hold the masks, does not exist"):
        load(folder, masks_dir=tmp_path / "nowhere")


def test_no_folder_given(tmp_path):
    with pytest.raises(UserError, match="There is no folder to read images from: give --data_dir."):
        ImageMaskFolder(cache_dir=tmp_path)


def test_class_folder_without_images(folder, load):
    (folder / "images/ant").mkdir()
    (folder / "images/bee/nested").mkdir(parents=True)
    with pytest.raises(UserError, match=r"images has class folders without an image: 2 \(first: ant\)"):
        load(folder)


def test_flat_folder(tmp_path, load):
    save(tmp_path / "flat/images/a.png")
    with pytest.raises(UserError, match="images has no class folders. Expected images/<class>/<image>"):
        load(tmp_path / "flat")


@pytest.fixture
def bare(tmp_path):
    """Class folders without a folder `images` around them, as torchvision and `datasets` read them."""
    for name in ("dog/a.png", "cat/b.jpg"):
        save(tmp_path / "bare" / name)
    return tmp_path / "bare"


def test_class_folders_themselves(bare, load, tmp_path):
    dataset = load(bare, with_masks=False)
    assert dataset["image_id"][:] == ["cat/b.jpg", "dog/a.png"]
    assert dataset.features["label"].names == ["cat", "dog"]
    with pytest.raises(UserError, match="bare holds images by class and no masks: name a folder of masks with --mas"):
        load(bare)
    for name in ("dog/a.png", "cat/b.png"):
        save(tmp_path / "made/masks" / name, value=77)
    assert np.asarray(load(bare, masks_dir=tmp_path / "made")[1]["mask"]).min() == 77


@pytest.mark.parametrize("masks", [*MADE_MASKS, "whole"])
@pytest.mark.parametrize("inner", ["", "images"])
def test_training_that_needs_no_masks(bare, tmp_path, masks, inner):
    if inner:
        bare = bare.rename(tmp_path / inner).parent
    pairs = load_training_pairs(str(bare), masks=masks)
    assert len(pairs) == 2 and "mask" not in pairs.column_names


@pytest.mark.parametrize(
    "masks, sentence",
    [
        ("annotated", "bare holds images by class and no masks"),
        ("random", "--masks random alters the photos' own masks, and .*bare has no folder 'masks'"),
        ("other", "--masks other alters the photos' own masks, and .*bare has no folder 'masks'"),
    ],
)
def test_training_that_needs_annotated_masks(bare, masks, sentence):
    with pytest.raises(UserError, match=sentence):
        load_training_pairs(str(bare), masks=masks)


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize(
    "splits, named", [(("test", "train", "val"), "train"), (("Val", "test"), "Val"), (("train",), "train")]
)
def test_splits_are_no_classes(tmp_path, load, inner, splits, named):
    root = tmp_path / "data"
    for split in splits:
        save(root / inner / split / "dog/a.png")
    (root / inner / "README.md").write_text("")
    sentence = rf"{root / inner} holds splits, not classes \({', '.join(sorted(splits))}\): name the folder of one of"
    with pytest.raises(UserError, match=f"{sentence} them, for example {root / inner / named}.$"):
        load(root, with_masks=False)
    assert load(root / inner / named, with_masks=False)["image_id"][:] == ["dog/a.png"]


def test_classes_that_are_called_like_splits(tmp_path, load):
    for name in ("train/a.png", "bus/b.png", "test/c.png"):
        save(tmp_path / "vehicles" / name)
    assert load(tmp_path / "vehicles", with_masks=False).features["label"].names == ["bus", "test", "train"]
    (tmp_path / "vehicles/bus/b.png").unlink()
    (tmp_path / "vehicles/bus").rmdir()
    assert load(tmp_path / "vehicles", with_masks=False).features["label"].names == ["test", "train"]


def test_images_of_any_layout(bare, folder, tmp_path):
    assert load_images(bare, tmp_path / "cache")["image_id"][:] == ["cat/b.jpg", "dog/a.png"]
    assert load_images(folder, tmp_path / "cache")["image_id"][:] == ["cat/é.webp", "dog/a.png", "dog/b c.JPG"]
    flat = load_images(bare / "dog", tmp_path / "cache")
    assert flat["image_id"][:] == ["a.png"] and flat[0]["image"].size == (8, 6)
    (bare / "dog/out.png").symlink_to(folder / "images/dog/a.png")
    with pytest.raises(UserError, match="out.png is a symbolic link that leads out of"):
        load_images(bare / "dog")


def test_two_images_cannot_share_a_mask(folder, load):
    save(folder / "images/dog/a.bmp")
    with pytest.raises(UserError, match=r"2 images have the stem of another image .* \(first: dog/a.bmp\)"):
        load(folder)
    assert len(load(folder, with_masks=False)) == 4


@pytest.mark.parametrize("link", ["images/dog/link.png", "masks/dog/link.png", "images/linked", "masks/linked"])
def test_link_out_of_the_folder_is_refused(folder, load, tmp_path, link):
    save(tmp_path / "secret/x.png")
    target = tmp_path / "secret" if link.endswith("linked") else tmp_path / "secret/x.png"
    (folder / link).symlink_to(target)
    with pytest.raises(UserError, match=f"{link} is a symbolic link that leads out of .* or to nothing"):
        load(folder)


def test_linked_images_folder_and_broken_link_are_refused(folder, load, tmp_path):
    (folder / "images/dog/broken.png").symlink_to("nothing.png")
    with pytest.raises(UserError, match="broken.png is a symbolic link"):
        load(folder)
    (folder / "images").rename(tmp_path / "outside")
    (folder / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="my data/images is a symbolic link"):
        load(folder)


def test_links_that_stay_inside_and_a_linked_root_are_fine(folder, load, tmp_path):
    (folder / "images/dog/again.png").symlink_to("a.png")
    (folder / "masks/dog/again.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link")["image_id"][1:3] == ["dog/a.png", "dog/again.png"]


def test_file_names_that_are_not_utf8_are_refused(folder, load):
    os.rename(folder / "images/dog/a.png", folder / "images/dog" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(
        UserError, match=r"The file name 'caf\\udce9.png' in .*/images/dog is not UTF-8: rename the file."
    ):
        load(folder)


def test_a_class_whose_images_were_all_left_out_is_forgotten_with_its_folder(folder, load):
    (folder / "masks/cat/é.png").unlink()
    assert load(folder, skip_missing_masks=True).features["label"].names == ["cat", "dog"]
    (folder / "images/cat/é.webp").unlink()
    (folder / "images/cat").rmdir()
    assert load(folder, skip_missing_masks=True).features["label"].names == ["dog"]
