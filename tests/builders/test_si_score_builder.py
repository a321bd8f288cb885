"""SI-Score in its official layouts, with and without metadata.csv."""

import pytest
from official_layouts import check_accuracies, plant, save_image
from planted_benchmarks import vit

from hf_robustvit.builders import load_benchmark
from hf_robustvit.builders.si_score import SIScore
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import SI_SCORE


METADATA = """image_id,x_coord,y_coord,area,rotation,foreground_class,foreground_instance,background,pct_inside_image
0,0.05,0.5,0.2,0,1,0,7,0.75
1,0.10,0.5,0.2,20,0,3,7,1.0
10,0.5,0.95,0.5,340,0,3,2,1.0
"""


@pytest.fixture
def root(tmp_path):
    """Three classes, four images, and the tables that lie beside them."""
    root = tmp_path / "data" / "object_location"
    for name in ("cheetah/0.jpg", "ambulance/10.jpg", "ambulance/1.jpg", "bald eagle/11.jpg"):
        save_image(root / name.replace("bald eagle", sorted(SI_SCORE)[-1]))
    (root / "foreground_classes.csv").write_text("imagenet_class,class_string\n407,ambulance\n")
    (root / "metadata.csv").write_text(METADATA)
    return root


@pytest.fixture
def load(tmp_path):
    return lambda name, folder, **options: load_benchmark(name, str(folder), str(tmp_path / "cache"), **options)


def test_rows(root, load, caplog):
    rows = load("si-score-location", root.parent)
    assert "are not read" not in caplog.text  # the tables belong there
    (root / "notes.csv").write_text("stray")
    load("si-score-location", root.parent)
    assert "1 entries are not <class>/<file>" in caplog.text and f"(first: {root}/notes.csv)" in caplog.text
    last = sorted(SI_SCORE)[-1]
    assert rows.features["label"].names == ["ambulance", "cheetah", last]
    assert rows["image_id"][:] == ["ambulance/1.jpg", "ambulance/10.jpg", "cheetah/0.jpg", f"{last}/11.jpg"]
    assert rows["label"][:] == [0, 0, 1, 2]
    assert rows["rotation"][:] == [20, 340, 0, None]
    assert rows["area"][:] == pytest.approx([0.2, 0.5, 0.2, None])
    assert rows["x"][:] == pytest.approx([0.1, 0.5, 0.05, None])
    assert rows["y"][:] == pytest.approx([0.5, 0.95, 0.5, None])
    assert rows["object"][:] == ["0/3", "0/3", "1/0", None]
    assert "names the objects" not in caplog.text


def test_without_metadata_or_with_fewer_columns(root, load, caplog):
    (root / "metadata.csv").write_text("image_id,rotation\n0,5\n")
    assert load("si-score-location", root).column_names == ["image", "label", "image_id", "rotation"]
    assert caplog.text.count("si-score-location: no metadata.csv with the columns foreground_class and") == 1
    (root / "metadata.csv").unlink()
    assert load("si-score-location", root).column_names == ["image", "label", "image_id"]


def test_a_changed_table_is_read_anew(root, load):
    load("si-score-location", root)
    (root / "metadata.csv").write_text(METADATA.replace("340", "77"))
    assert load("si-score-location", root)["rotation"][1] == 77


@pytest.mark.parametrize("text", ["image_id,area\n0,large\n", "id,area\n0,0.2\n", f"image_id\n{'x' * 200_000}\n"])
def test_a_broken_table_is_named(root, load, text):
    (root / "metadata.csv").write_text(text)
    with pytest.raises(
        UserError, match=r"si-score-location: .*metadata.csv cannot be read \(.*remove it to do without"
    ):
        load("si-score-location", root)


def test_processes_and_streaming(root, load, tmp_path):
    expected = list(load("si-score-location", root).remove_columns("image"))
    again = load_benchmark("si-score-location", str(root), str(tmp_path / "other"), num_proc=2)
    assert list(again.remove_columns("image")) == expected
    builder = SIScore(config_name="si-score-location", data_dir=str(root), cache_dir=str(tmp_path / "third"))
    assert list(builder.as_streaming_dataset(split="test").remove_columns("image")) == expected


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("si-score-location", "location20_area02_min0pc"),
        ("si-score-rotation", "rotation"),
        ("si-score-size", "area"),
        ("si-score-size", "object_size"),
    ],
)
def test_the_folders_of_the_zips_and_accuracies(tmp_path, name, folder):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    names = sorted(SI_SCORE)[:70]
    truth = plant(
        tmp_path,
        checkpoint,
        [(SI_SCORE[name],) for name in names],
        lambda number, position: tmp_path / folder / names[position] / f"{number}.jpg",
    )
    (tmp_path / folder / "foreground_classes.csv").write_text("imagenet_class,class_string\n")
    present = [name for name in names if (tmp_path / folder / name).is_dir()]
    check_accuracies(name, tmp_path, checkpoint, truth, [(SI_SCORE[name],) for name in present])


def test_unknown_class_and_no_class(root, load, tmp_path):
    save_image(root / "unicorn" / "1.jpg")
    with pytest.raises(UserError, match=r"1 of the 4 folders of images .* \(first: unicorn\)"):
        load("si-score-location", root)
    save_image(tmp_path / "other" / "unicorn" / "1.jpg")
    with pytest.raises(UserError, match=r"1 of the 1 folders of images .* \(first: unicorn\)"):
        load("si-score-size", tmp_path / "other")
    with pytest.raises(UserError, match="si-score-rotation: .* has no class folders with images"):
        load("si-score-rotation", tmp_path / "other" / "unicorn")
