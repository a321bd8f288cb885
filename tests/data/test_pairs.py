import io
import struct
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_robustvit.data import PairError, check_pairs, foreground_mask, pairs, read_pair, read_row
from hf_robustvit.errors import UserError


SHAPE = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=np.uint8)  # 4 wide, 3 high
FOREGROUND = SHAPE * 255


def palette_mask(colour):
    mask = Image.fromarray(SHAPE).convert("P")
    mask.putpalette([0, 0, 0, *colour])
    return mask


def transparent_mask():
    mask = Image.new("RGBA", (4, 3), "white")
    mask.putalpha(Image.fromarray(FOREGROUND))
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(FOREGROUND),
        Image.fromarray(SHAPE),
        Image.fromarray(FOREGROUND).convert("1"),
        Image.fromarray(FOREGROUND).convert("RGB"),
        Image.fromarray(FOREGROUND).convert("RGBA"),
        Image.fromarray(SHAPE).convert("RGB"),
        palette_mask((255, 255, 255)),
        palette_mask((1, 1, 1)),
        palette_mask((128, 0, 0)),
        transparent_mask(),
        Image.fromarray(SHAPE.astype(np.uint16)),
        Image.fromarray(FOREGROUND.astype(np.uint16)),
        Image.fromarray(SHAPE.astype(np.uint16) * 65535),
        Image.fromarray(FOREGROUND.astype(np.int32)),
        Image.fromarray(SHAPE.astype(np.float32)),
    ],
)
def test_masks_of_every_mode_mean_the_same(mask):
    read = foreground_mask(mask)
    assert read.mode == "L"
    np.testing.assert_array_equal(np.asarray(read), FOREGROUND)


def test_soft_masks_keep_their_values():
    soft = np.array([[0, 1, 64, 128, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(foreground_mask(Image.fromarray(soft))), soft)
    np.testing.assert_array_equal(np.asarray(foreground_mask(Image.fromarray(soft).convert("P"))), soft)
    sixteen_bits = Image.fromarray(soft.astype(np.uint16) * 257)
    np.testing.assert_array_equal(np.asarray(foreground_mask(sixteen_bits)), soft)


def test_a_mask_of_several_colours_is_refused_with_its_colours():
    colours = np.zeros((1, 4, 3), dtype=np.uint8)
    colours[0, 1:] = [[128, 0, 0], [0, 0, 1], [255, 255, 255]]
    with pytest.raises(ValueError, match=r"has the values \(0,0,0\), \(0,0,1\), \(128,0,0\), \(255,255,255\), and"):
        foreground_mask(Image.fromarray(colours))


def test_photograph_is_no_mask():
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="more than 256 colours"):
        foreground_mask(Image.fromarray(noise))
    with pytest.raises(ValueError, match="values from -3 to 0"):
        foreground_mask(Image.fromarray(np.array([[-3, 0]], dtype=np.int32)))


def save_rotated(path, array, orientation=6):
    """Store the picture turned, with the EXIF tag that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(array)).save(path, exif=exif, quality=100, subsampling=0)


def test_image_is_read_as_displayed(tmp_path):
    shown = np.zeros((16, 32, 3), dtype=np.uint8)
    shown[:8, :8] = 255
    save_rotated(tmp_path / "a.jpg", shown)
    Image.fromarray(shown[..., 0]).save(tmp_path / "a.png")
    row = {
        "image": {"path": str(tmp_path / "a.jpg"), "bytes": None},
        "mask": {"path": None, "bytes": (tmp_path / "a.png").read_bytes()},
        "image_id": "a",
    }
    image, mask = read_pair(row)
    assert (image.mode, mask.mode, image.size) == ("RGB", "L", (32, 16))
    assert np.abs(np.asarray(image)[..., 0].astype(int) - np.asarray(mask)).max() <= 3
    decoded, _ = read_pair(row | {"image": Image.open(tmp_path / "a.jpg"), "mask": Image.open(tmp_path / "a.png")})
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "I;16"])
def test_images_of_every_mode_become_rgb(tmp_path, mode):
    grey = np.repeat(np.array([[0, 255], [255, 0]], dtype=np.uint8), 8, 0).repeat(8, 1)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png"), quality=100)
    (path,) = tmp_path.iterdir()
    assert Image.open(path).mode == mode
    read, mask = read_pair({"image": {"path": str(path), "bytes": None}, "image_id": "a"})
    assert mask is None and read.mode == "RGB"
    assert np.abs(np.asarray(read).astype(int) - grey[..., None]).max() <= 3


def test_sixteen_bit_photograph_is_scaled_and_not_cut_off():
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None]
    image, _ = read_pair({"image": Image.fromarray(ramp), "image_id": "a"})
    np.testing.assert_array_equal(np.asarray(image)[0, :, 0], np.arange(256))


def png_bytes(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb():
    """A PNG whose header promises 30000 x 30000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture
def broken(tmp_path):
    """Rows by name: a good one and one of every kind that cannot be used."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    whole = np.full((40, 60), 255, dtype=np.uint8)
    whole[:5] = 0
    good = png_bytes(noise), png_bytes(whole)
    files = {
        "good": good,
        "truncated": (good[0][:2000], good[1]),
        "text": (b"<html>", good[1]),
        "bomb": (bomb(), good[1]),
        "truncated-mask": (good[0], good[1][:-30]),
        "photograph-mask": (good[0], good[0]),
        "turned": (good[0], png_bytes(whole.T)),
        "small": (good[0], png_bytes(whole[:20, :20])),
        "empty": (good[0], png_bytes(whole * 0)),
    }
    rows = {}
    for name, (image, mask) in files.items():
        for kind, content in (("image", image), ("mask", mask)):
            (tmp_path / f"{name}.{kind}").write_bytes(content)
        paths = {kind: str(tmp_path / f"{name}.{kind}") for kind in ("image", "mask")}
        rows[name] = paths | {"image_id": name, "label": 0}
    rows["gone"] = rows["good"] | {"image": str(tmp_path / "gone.image"), "image_id": "gone"}
    return rows


def dataset_of(rows, names):
    features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["thing"])
    return datasets.Dataset.from_list([rows[name] for name in names], features=datasets.Features(features))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "{folder}/truncated.image: "),
        ("text", "{folder}/text.image is not a picture"),
        ("bomb", "{folder}/bomb.image: Image size (900000000 pixels) exceeds limit"),
        ("gone", "{folder}/gone.image: No such file or directory"),
        ("truncated-mask", "{folder}/truncated-mask.mask: "),
        ("photograph-mask", "{folder}/photograph-mask.mask: it has more than 256 colours, so it is not a mask"),
        (
            "turned",
            "{folder}/turned.mask is 40x60 pixels, its image {folder}/turned.image 60x40 as displayed",
        ),
        ("empty", "{folder}/empty.mask marks no pixel as foreground"),
    ],
)
def test_a_broken_pair_is_named(broken, tmp_path, name, message):
    row = broken[name] | {kind: {"path": broken[name][kind], "bytes": None} for kind in ("image", "mask")}
    with pytest.raises(PairError) as error:
        read_pair(row)
    assert str(error.value).startswith(message.format(folder=tmp_path))


def test_an_embedded_picture_is_named_by_its_row():
    row = {"image": Image.new("RGB", (4, 4)), "mask": {"path": "x.png", "bytes": b"no"}, "image_id": "cat/1.jpg"}
    with pytest.raises(PairError, match="^the mask of cat/1.jpg is not a picture$"):
        read_pair(row)


def test_a_broken_orientation_is_not_read_where_images_stay_as_stored():
    content = png_bytes(np.full((4, 4, 3), 9, dtype=np.uint8))
    row = {"image": {"path": None, "bytes": content[:8] + chunk(b"eXIf", b"?" * 12) + content[8:]}, "image_id": "a"}
    assert np.asarray(read_row(row, turned=False).image).max() == 9
    with pytest.raises(PairError, match="^a: not a TIFF file"):
        read_row(row)


def test_the_first_of_two_orientations_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2)).save(buffer, "png", exif=exif)
    content = buffer.getvalue()
    row = {
        "image": {"path": None, "bytes": content[:-12] + chunk(b"eXIf", b"?" * 12) + content[-12:]},
        "image_id": "a",
    }
    assert read_row(row).image.size == (2, 4)


def test_a_reason_without_words_is_told_by_its_kind(monkeypatch):
    def fail(file):
        raise AssertionError

    monkeypatch.setattr(pairs, "open_picture", fail)
    with pytest.raises(PairError, match="^a: AssertionError$"):
        read_pair({"image": {"path": None, "bytes": b""}, "image_id": "a"})


@pytest.mark.parametrize("num_proc", [None, 2])
def test_check_pairs_counts_and_names_every_kind(broken, tmp_path, num_proc):
    names = ["good", "text", "gone", "truncated-mask", "turned", "small", "empty", "good"]
    with pytest.raises(UserError) as error:
        check_pairs(dataset_of(broken, names), num_proc=num_proc)
    message = str(error.value)
    assert message.startswith(
        "6 of 8 training pairs cannot be used: "
        f"2 images cannot be read (first: {tmp_path}/text.image is not a picture), "
        f"1 mask cannot be read (first: {tmp_path}/truncated-mask.mask: "
    )
    assert message.endswith(
        f"2 masks have another size than their image (first: {tmp_path}/turned.mask is 40x60 pixels, its image "
        f"{tmp_path}/turned.image 60x40 as displayed), "
        f"1 mask has no foreground (first: {tmp_path}/empty.mask marks no pixel as foreground). "
        "Repair or remove them, or pass --skip_unreadable to leave them out."
    )


def test_check_pairs_can_skip(broken, tmp_path, caplog):
    dataset = check_pairs(dataset_of(broken, ["empty", "good", "text"]), skip=True)
    assert dataset["image_id"][:] == ["good"]
    assert dataset[0]["image"].size == (60, 40)
    messages = [record.getMessage() for record in caplog.records if record.name == "hf_robustvit.data.pairs"]
    assert messages == [
        f"Left out: {tmp_path}/empty.mask marks no pixel as foreground.",
        f"Left out: {tmp_path}/text.image is not a picture.",
        "2 of 3 training pairs are left out.",
    ]
    assert len(check_pairs(dataset_of(broken, ["empty", "good"]), skip=("empty", "implausible"))) == 1
    with pytest.raises(UserError, match="1 image cannot be read .* 1 mask has no foreground"):
        check_pairs(dataset_of(broken, ["empty", "good", "text"]), skip=("empty", "implausible"))
    with pytest.raises(UserError, match="1 of 1 training pairs cannot be used"):
        check_pairs(dataset_of(broken, ["empty"]), skip=True)


def test_check_pairs_passes_good_sets_and_sees_later_damage(broken, tmp_path):
    dataset = dataset_of(broken, ["good", "good"])
    assert check_pairs(dataset) is dataset
    (tmp_path / "good.mask").write_bytes(b"overwritten")
    with pytest.raises(UserError, match="2 of 2 training pairs cannot be used: 2 masks cannot be read"):
        check_pairs(dataset)
    images = dataset.remove_columns("mask")
    assert check_pairs(images) is images
    (tmp_path / "good.image").unlink()
    with pytest.raises(UserError, match="2 of 2 images cannot be used: 2 images cannot be read"):
        check_pairs(images)
