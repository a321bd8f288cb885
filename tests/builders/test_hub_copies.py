"""Copies on the Hub, as local folders of the same Parquet files and webdataset archives."""

import io
import tarfile
from dataclasses import replace

import datasets
import pytest
from PIL import Image
from planted_benchmarks import vit

from hf_robustvit.builders import BENCHMARKS, load_benchmark, load_benchmark_rows
from hf_robustvit.builders import hub_copies as hub
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.imagenet_classes import IMAGENET_A, IMAGENET_R, WNIDS


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Makes the copy of a benchmark a local folder, and returns that folder."""

    def make_local(name):
        folder = tmp_path / "hub" / name
        folder.mkdir(parents=True)
        monkeypatch.setitem(hub.COPIES, name, replace(hub.COPIES[name], repository=str(folder)))
        monkeypatch.setattr(hub, "latest_revision", lambda repository: "0123abc")
        return folder

    return make_local


def picture(value):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(stream, "png")
    return stream.getvalue()


def number_in(image):
    red, green, _ = image.convert("RGB").getpixel((0, 0))
    return red + 256 * green


def write_parquet(path, columns, **features):
    features = datasets.Features({"image": datasets.Image(), **features})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


def write_tars(folder, labels, extension, per_tar=400):
    """Archives as clip-benchmark has them (s0000000.cls, a label's digits; s0000000.<extension>), and text files."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    for start in range(0, len(labels), per_tar):
        with tarfile.open(folder / "test" / f"{start // per_tar}.tar", "w") as tar:
            for number, label in list(enumerate(labels))[start : start + per_tar]:
                for suffix, content in (("cls", str(label).encode()), (extension, picture(label))):
                    info = tarfile.TarInfo(f"s{number:07d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (folder / "test" / "nshards.txt").write_text("3")
    (folder / "classnames.txt").write_text("tench\n")


def write_a(folder, names):
    """barkermrl/imagenet-a: one split `train`, label with wnids for names."""
    labels = [number * 7 % len(names) for number in range(len(names))]
    images = [{"bytes": picture(WNIDS.index(names[label])), "path": "0.jpg"} for label in labels]
    path = folder / "data" / "train-00000-of-00001.parquet"
    write_parquet(path, {"image": images, "label": labels}, label=datasets.ClassLabel(names=names))


def test_parquet_with_named_labels(local, tmp_path, caplog):
    # In an order of its own, which is not ours.
    write_a(local("imagenet-a"), [WNIDS[index] for index in reversed(IMAGENET_A)])
    with caplog.at_level("INFO"):
        rows = load_benchmark("imagenet-a", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["image", "label", "image_id"] and len(rows) == 200
    assert rows.features["label"].names == [WNIDS[index] for index in IMAGENET_A]
    assert [IMAGENET_A[row["label"]] for row in rows] == [number_in(row["image"]) for row in rows]
    assert len(set(rows["image_id"])) == 200 and rows["image_id"][3] == "train/000003"
    (message,) = [record.getMessage() for record in caplog.records if "Hub" in record.getMessage()]
    assert f"{tmp_path}/hub/imagenet-a at revision 0123abc; licence MIT; label space: 200 wnids" in message


def test_parquet_with_a_column_of_wnids(local, tmp_path):
    folder = local("imagenet-r")
    indices = [IMAGENET_R[number * 7 % 200] for number in range(400)]
    columns = {
        "image": [{"bytes": picture(index), "path": None} for index in indices],
        "wnid": [WNIDS[index] for index in indices],
        "class_name": ["some class" for _ in indices],
    }
    text = datasets.Value("string")
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", columns, wnid=text, class_name=text)
    rows = load_benchmark("imagenet-r", cache_dir=str(tmp_path / "cache"))
    assert [IMAGENET_R[row["label"]] for row in rows] == [number_in(row["image"]) for row in rows] == indices


@pytest.mark.parametrize(("name", "extension"), [("imagenet-sketch", "jpg"), ("imagenet-v2", "webp")])
def test_webdataset(local, tmp_path, name, extension):
    labels = [number * 7 % 1000 for number in range(1000)]
    write_tars(local(name), labels, extension)
    rows = load_benchmark(name, cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == list(WNIDS)
    assert rows["label"][:] == labels == [number_in(row["image"]) for row in rows]
    assert len(set(rows["image_id"])) == 1000


def test_labels_of_another_space_are_refused_before_anything_is_scored(local, tmp_path):
    write_tars(local("imagenet-v2"), list(range(1, 1001)), "webp")  # counted from 1
    with pytest.raises(
        UserError, match=r"lacks images of 1 of the .* 1000 classes and has 1 labels .* \(first: 1000\)"
    ):
        load_benchmark("imagenet-v2", cache_dir=str(tmp_path / "cache"))
    write_tars(local("imagenet-sketch"), list(range(200)), "jpg")
    with pytest.raises(UserError, match="lacks images of 800 of the .* 1000 classes and has no other labels: it was"):
        load_benchmark("imagenet-sketch", cache_dir=str(tmp_path / "cache"))
    write_a(local("imagenet-a"), [WNIDS[index] for index in IMAGENET_R])
    with pytest.raises(
        UserError, match="lacks images of 114 of the .* 200 classes and has 114 labels .* name its folder"
    ):
        load_benchmark("imagenet-a", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("column", ["labels", "label"])
def test_other_columns_and_labels_without_names_are_refused(local, tmp_path, column):
    columns = {"image": [{"bytes": picture(1), "path": None}], column: [1]}
    write_parquet(local("imagenet-a") / "data" / "train-0.parquet", columns, **{column: datasets.Value("int64")})
    expected = rf"the columns image, {column}; expected one of images and label \(with named classes\): it was changed"
    with pytest.raises(UserError, match=expected):
        load_benchmark("imagenet-a", cache_dir=str(tmp_path / "cache"))


def test_a_copy_is_scored_as_the_folder_is(local, tmp_path):
    write_a(local("imagenet-a"), [WNIDS[index] for index in IMAGENET_A])
    data = BenchmarkData.for_model(load_benchmark_rows("imagenet-a"), vit(1000)[0].config)
    assert data.label_space.name == "ImageNet indices"
    assert data.label_space.first_indices == IMAGENET_A


PUBLISHED = [name for name in BENCHMARKS if not name.startswith(("cutouts-", "composites-"))]


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_a_folder_and_without_the_hub_the_message_names_data_dir(name):
    with pytest.raises(UserError, match="--data_dir") as error:
        load_benchmark(name)
    message = str(error.value)
    assert message.startswith(f"--dataset {name} ")
    if name in hub.COPIES:
        assert f"read from the Hub ({hub.COPIES[name].repository}), and that failed" in message
    else:
        assert "Hub" in message and "name" in message


def test_every_benchmark_can_be_taken_or_says_why_not():
    names = set(PUBLISHED)
    assert names == set(hub.COPIES) | set(hub.WHY_NOT) and not set(hub.COPIES) & set(hub.WHY_NOT)


def test_a_data_set_of_which_nothing_is_known_there_needs_its_folder():
    with pytest.raises(UserError, match="--dataset brand-new needs --data_dir: no copy on the Hub is known"):
        hub.load_from_hub("brand-new")
