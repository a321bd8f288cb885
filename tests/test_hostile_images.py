"""Image files made to harm: training, evaluation and explain tell each by name, and decode none that is too large."""

import re
import struct
import zlib

import pytest
from photo_folder import finetune, save_model, save_photos
from PIL import Image, ImageFile

import run_eval
from hf_robustvit.__main__ import main as tools
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings


def bomb(path):
    """A small PNG whose header claims 60000 x 60000 pixels, above what Pillow refuses."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    packed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def huge(path):
    """A whole PNG of 100 million pixels, of which Pillow only warns."""
    Image.new("1", (12500, 8000)).save(path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-400])


def train(place, monkeypatch):
    finetune(monkeypatch, "--model", place / "model", "--dataset", place / "data", "--output_dir", place / "out")


def evaluate(place, monkeypatch):
    flags = (
        "--model",
        place / "model",
        "--dataset",
        place / "data",
        "--output_dir",
        place / "out",
        "--num_workers",
        0,
    )
    run_eval.main(*parse_settings(run_eval.EvaluationArguments, arguments=list(map(str, flags))))


def explain(place, monkeypatch):
    tools(["explain", str(place / "model"), str(place / "data/images/bee/2.png"), "-o", str(place / "out.png")])


@pytest.mark.parametrize("use", [train, evaluate, explain])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (bomb, r"Image size \(3600000000 pixels\) exceeds limit"),
        (huge, r"Image size \(100000000 pixels\) exceeds limit"),
        (truncated, "truncated"),
    ],
)
def test_a_hostile_image_is_told_by_name_and_not_decoded(tmp_path, monkeypatch, capsys, harm, reason, use):
    save_model(tmp_path / "model", ("ant", "bee", "cow"))
    harm(save_photos(tmp_path / "data") / "images/bee/2.png")
    decoded = []
    prepare = ImageFile.ImageFile.load_prepare
    monkeypatch.setattr(
        ImageFile.ImageFile, "load_prepare", lambda image: (decoded.append(image.width * image.height), prepare(image))
    )
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        use(tmp_path, monkeypatch)
    assert stopped.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error.count("bee/2.png") == 1 and re.search(reason, error), error
    assert max(decoded, default=0) <= 40 * 40
