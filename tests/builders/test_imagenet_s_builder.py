"""ImageNet-S in its official layout: masks of ids, and images in ImageNet's own folders."""

import numpy as np
import pytest
from official_layouts import check_accuracies, plant, save_image
from PIL import Image
from planted_benchmarks import vit

from hf_robustvit.builders import load_benchmark, load_training_pairs
from hf_robustvit.builders.imagenet_s import MERGED_INTO, ImageNetS
from hf_robustvit.builders.listing import prepare
from hf_robustvit.data import check_pairs, read_pair
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import WNIDS


FOLDERS = ("n01440764", "n01443537", "n02808440", "n03000134")  # the third holds the images of two classes
TRAIN_FILES = (
    "n01440764/n01440764_2",
    "n01440764/n01440764_10",
    "n01443537/n01443537_7",
    "n02808440/n02808440_5",
    "n02808440/n04493381_27386",  # its image lies in n04493381, another class of ImageNet
    "n03000134/n03000134_1",
)


def save_mask(path, class_id, size=(8, 6)):
    """A box of the class's id, a column of 1000, and nothing else; the blue channel means nothing."""
    ids = np.zeros((size[1], size[0]), dtype=np.int64)
    ids[1:4, 2:6] = class_id
    ids[:, -1] = 1000
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256, np.full_like(ids, 3)], axis=-1).astype(np.uint8)).save(path)


def write_masks(root, names, split):
    for name in names:
        save_mask(root / f"{split}-segmentation" / f"{name}.png", 300 + FOLDERS.index(name.split("/")[0]))


@pytest.fixture
def root(tmp_path):
    """Masks as the authors ship them."""
    root = tmp_path / "data" / "ImageNetS919"
    write_masks(root, TRAIN_FILES, "train-semi")
    (root / "train-semi-segmentation" / "README.md").write_text("masks")
    return root


@pytest.fixture
def train(tmp_path):
    """ImageNet's train folder: every image where its own name says, and more than there are masks."""
    for name in (*TRAIN_FILES, "n01440764/n01440764_99"):
        stem = name.split("/")[1]
        save_image(tmp_path / "ILSVRC" / "train" / stem.split("_")[0] / f"{stem}.JPEG", mode="L")
    return tmp_path / "ILSVRC" / "train"


@pytest.fixture
def pairs(tmp_path):
    def load(root, config_name="train-semi", num_proc=None, cache="cache", **options):
        folders = {name: str(folder) for name, folder in options.items() if name.endswith("_dir")}
        builder = ImageNetS(
            config_name=config_name, data_dir=str(root), cache_dir=str(tmp_path / cache), **(options | folders)
        )
        return prepare(builder, "train" if config_name == "train-semi" else "test", num_proc)

    return load


BOX = np.zeros((6, 8), dtype=np.uint8)
BOX[1:4, 2:6] = 255


@pytest.mark.parametrize("below", ["", "train"])
def test_training_pairs_without_the_merged_classes(root, train, below):
    images_dir = train if below else train.parent
    rows = load_training_pairs("imagenet-s", str(root.parent), str(images_dir))
    assert rows.features["label"].names == ["n01440764", "n01443537", "n03000134"]
    assert rows["image_id"][:] == [
        "n01440764/n01440764_10.JPEG",
        "n01440764/n01440764_2.JPEG",
        "n01443537/n01443537_7.JPEG",
        "n03000134/n03000134_1.JPEG",
    ]
    assert rows["label"][:] == [0, 0, 1, 2]
    for row in rows:
        assert row["mask"].mode == "L"
        np.testing.assert_array_equal(np.asarray(row["mask"]), BOX)  # what was left open is background
        assert row["image"].size == (8, 6)
    assert check_pairs(rows) is rows


def test_all_ids_up_to_919_and_the_ignored_one_are_told_apart(root, train, pairs):
    mask = root / "train-semi-segmentation" / "n01443537" / "n01443537_7.png"
    for class_id in (1, 255, 256, 488, 744, 919):  # 744 and 488 share a byte with 1000 = 232 + 3 * 256
        save_mask(mask, class_id)
        np.testing.assert_array_equal(np.asarray(pairs(root, images_dir=train)[2]["mask"]), BOX)
    with Image.open(mask) as picture:
        assert picture.getpixel((7, 0)) == (232, 3, 3)


def test_ignored_pixels_on_request(root, train, pairs):
    assert "ignore" not in pairs(root, images_dir=train).column_names
    row = pairs(root, images_dir=train, ignore=True)[0]
    ignored = np.zeros((6, 8), dtype=np.uint8)
    ignored[:, -1] = 255
    assert row["ignore"].mode == "L"
    np.testing.assert_array_equal(np.asarray(row["ignore"]), ignored)
    np.testing.assert_array_equal(np.asarray(row["mask"]), BOX)


def test_merged_classes_on_request_and_images_named_after_another_class(root, train, pairs):
    save_image(train / "n04493381" / "n04493381_27386.JPEG", value=33)
    rows = pairs(root, images_dir=train, merged_classes=True)
    assert rows.features["label"].names == list(FOLDERS)
    assert rows["image_id"][3:5] == ["n02808440/n02808440_5.JPEG", "n02808440/n04493381_27386.JPEG"]
    assert rows["label"][:] == [0, 0, 1, 2, 2, 3]
    assert rows[4]["image"].getpixel((0, 0))[0] == 33


def test_the_ten_merged_classes_are_imagenets_and_leave_914_of_919():
    assert {WNIDS.index(source): WNIDS.index(target) for source, target in MERGED_INTO.items()} == {
        837: 836,
        876: 435,
        620: 681,
        744: 657,
        700: 999,
    }


def test_images_that_the_authors_script_put_beside_the_masks(root, pairs):
    for name in TRAIN_FILES:
        save_image(root / "train-semi" / f"{name}.JPEG")
    assert len(pairs(root)) == 4
    assert len(pairs(root, merged_classes=True)) == 6


def test_masks_of_ones_own(root, train, tmp_path):
    for name in ("n01440764/n01440764_99", "n03000134/n03000134_1"):
        save_image(tmp_path / "tokencut" / f"{name}.png", value=77, mode="L")
    rows = load_training_pairs("imagenet-s", None, str(train), str(tmp_path / "tokencut"))
    assert rows["image_id"][:] == ["n01440764/n01440764_99.JPEG", "n03000134/n03000134_1.JPEG"]
    assert [np.asarray(row["mask"]).max() for row in rows] == [77, 77]


def test_processes_and_streaming(root, train, pairs, tmp_path):
    expected = [row["image_id"] for row in pairs(root, images_dir=train)]
    again = pairs(root, images_dir=train, num_proc=2, cache="other")
    assert again["image_id"][:] == expected
    builder = ImageNetS(config_name="train-semi", data_dir=str(root), images_dir=str(train), cache_dir=str(tmp_path))
    stream = list(builder.as_streaming_dataset(split="train"))
    assert [row["image_id"] for row in stream] == expected
    np.testing.assert_array_equal(np.asarray(stream[0]["mask"]), BOX)


def test_a_changed_folder_is_read_anew(root, train, pairs):
    assert len(pairs(root, images_dir=train)) == 4
    save_mask(root / "train-semi-segmentation" / "n01440764" / "n01440764_99.png", 300)
    assert len(pairs(root, images_dir=train)) == 5


def test_missing_originals_are_named_and_counted(root, train, pairs):
    (train / "n01440764" / "n01440764_2.JPEG").unlink()
    (train / "n03000134" / "n03000134_1.JPEG").unlink()
    with pytest.raises(UserError) as error:
        pairs(root, images_dir=train)
    assert str(error.value) == (
        f"--dataset imagenet-s: 2 of 4 masks have no image in {train} (first: n01440764/n01440764_2.JPEG): "
        "name ImageNet's train folder with --images_dir, or make train-semi with the authors' script."
    )


@pytest.mark.parametrize("ids", [(), (5, 6)])
def test_a_mask_with_no_or_two_ids_is_named(root, train, pairs, ids):
    path = root / "train-semi-segmentation" / "n01443537" / "n01443537_7.png"
    save_mask(path, 0)
    with Image.open(path) as file:
        pixels = np.array(file)
    for number, class_id in enumerate(ids):
        pixels[number, number] = (class_id, 0, 0)
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError) as error:
        pairs(root, images_dir=train)
    assert str(error.value) == (
        f"--dataset imagenet-s: the mask {path} has the ids {[0, *ids, 1000]}; expected exactly one, its class's, "
        "besides 0 (no class) and 1000 (left open): download it again."
    )


def test_a_broken_mask_is_named(root, train, pairs):
    path = root / "train-semi-segmentation" / "n01443537" / "n01443537_7.png"
    path.write_text("no mask")
    with pytest.raises(UserError, match=f"the mask {path} cannot be read"):
        pairs(root, images_dir=train)


def test_folders_that_are_not_there(root, train, pairs, tmp_path):
    with pytest.raises(UserError, match=r"--dataset imagenet-s needs --data_dir: the folder of the data set \(ImageN"):
        load_training_pairs("imagenet-s")
    with pytest.raises(
        UserError, match=r"ImageNetS919/train-semi, which should hold the images.* ImageNet's train folder with --imag"
    ):
        pairs(root)
    with pytest.raises(UserError, match="ILSVRC has no folder train-semi-segmentation. Expected ImageNetS919/train-s"):
        pairs(train.parent)
    train.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="ILSVRC/train, which should hold the images, does not exist"):
        pairs(root, images_dir=train)
    with pytest.raises(UserError, match=r"has folders that are not ImageNet classes \(first: cat\)"):
        save_mask(root / "train-semi-segmentation" / "cat" / "cat_1.png", 300)
        pairs(root, images_dir=train)


def test_a_linked_image_outside_is_refused(root, train, pairs, tmp_path):
    image = train / "n01440764" / "n01440764_2.JPEG"
    image.rename(tmp_path / "elsewhere.JPEG")
    image.symlink_to(tmp_path / "elsewhere.JPEG")
    with pytest.raises(UserError, match="n01440764_2.JPEG is a symbolic link that leads out of"):
        pairs(root, images_dir=train)


def write_validation(root):
    """All 50 classes of ImageNetS50, so that the id of each is known."""
    wnids = [wnid for wnid in WNIDS if wnid not in MERGED_INTO][:49] + ["n15075141"]
    for number, wnid in enumerate(wnids):
        save_mask(root / "validation-segmentation" / wnid / f"ILSVRC2012_val_{number:08d}.png", number + 1)
    return wnids


def test_a_validation_mask_of_several_classes_counts_its_own(tmp_path, pairs):
    root = tmp_path / "ImageNetS50"
    wnids = write_validation(root)
    for number, wnid in enumerate(wnids):
        save_image(root / "validation" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG")
    path = root / "validation-segmentation" / wnids[7] / "ILSVRC2012_val_00000007.png"
    with Image.open(path) as file:
        pixels = np.array(file)
    pixels[0, 0] = (31, 0, 0)
    Image.fromarray(pixels).save(path)
    rows = pairs(tmp_path, "validation")
    assert len(rows) == 49 and rows["label"][:] == list(range(49))  # the last class is one of the ten
    np.testing.assert_array_equal(np.asarray(rows[7]["mask"]), BOX)
    assert load_benchmark("imagenet-s", str(tmp_path))["image_id"][:] == rows["image_id"][:]
    (root / "validation").rename(root / "elsewhere")
    with pytest.raises(
        UserError, match="validation, which should hold the images.* masks only: make ImageNetS919/validation with the"
    ):
        load_benchmark("imagenet-s", str(tmp_path))


def test_accuracies_on_the_validation_images(tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    indices = [number for number in range(0, 1000, 3) if WNIDS[number] not in {*MERGED_INTO, *MERGED_INTO.values()}]
    root = tmp_path / "ImageNetS919"

    def target(number, position):
        name = f"{WNIDS[indices[position]]}/ILSVRC2012_val_{number:08d}"
        save_mask(root / "validation-segmentation" / f"{name}.png", position + 1)
        return root / "validation" / f"{name}.JPEG"

    truth = plant(tmp_path, checkpoint, [(index,) for index in indices], target)
    present = sorted({index for (index,) in truth.values()})
    check_accuracies("imagenet-s", tmp_path, checkpoint, truth, [(index,) for index in present])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_masks_turn_with_their_images(root, train, pairs, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((6, 8, 3), dtype=np.uint8)
    stored[1:4, 2:6] = 255  # where the mask is, on the pixels as they are stored
    Image.fromarray(stored).save(train / "n01440764" / "n01440764_2.JPEG", exif=exif, quality=100)
    rows = pairs(root, images_dir=train)
    row = rows[rows["image_id"].index("n01440764/n01440764_2.JPEG")]
    image, mask = read_pair(row)
    assert image.size == mask.size == ((6, 8) if orientation == 6 else (8, 6))
    np.testing.assert_array_equal(np.asarray(image.convert("L")) > 127, np.asarray(mask) > 127)
