"""Waterbirds in its official layout, its worst group and its adjusted average."""

import numpy as np
import pytest
from official_layouts import evaluate_set, save_image
from planted_benchmarks import photographs, plain_logits, vit

from hf_robustvit.builders import load_benchmark
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint


HEADER = "img_id,img_filename,y,split,place,place_filename\n"
TRAINING = {(0, 0): 3498, (0, 1): 184, (1, 0): 56, (1, 1): 1057}


def write_table(folder, rows):
    """metadata.csv of (image, y, split, place)."""
    lines = [
        f"{number},{name},{y},{split},{place},/o/sea.jpg\n" for number, (name, y, split, place) in enumerate(rows)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text(HEADER + "".join(lines))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data" / "waterbird_complete95_forest2water2"
    rows = [
        ("001.Auk/b.jpg", 1, 2, 0),
        ("001.Auk/a.jpg", 1, 0, 1),
        ("002.Jay/c.jpg", 0, 2, 1),
        ("002.Jay/d.jpg", 0, 1, 0),
    ]
    write_table(root, rows)
    for name in ("001.Auk/b.jpg", "002.Jay/c.jpg"):
        save_image(root / name)
    return root


@pytest.mark.parametrize("named", ["data", "data/waterbird_complete95_forest2water2"])
def test_rows_are_the_test_split(root, tmp_path, named):
    rows = load_benchmark("waterbirds", str(tmp_path / named), str(tmp_path / "cache"))
    assert rows.features["label"].names == ["landbird", "waterbird"]
    assert rows["image_id"][:] == ["001.Auk/b.jpg", "002.Jay/c.jpg"] and rows["label"][:] == [1, 0]
    assert rows["group"][:] == ["waterbird on land", "landbird on water"] and rows["group_weight"][:] == [56, 184]


def test_worst_group_and_adjusted_average_equal_an_independent_loop(tmp_path):
    model, processor = vit(2)
    model.config.id2label, model.config.label2id = {0: "waterbird", 1: "landbird"}, {"waterbird": 0, "landbird": 1}
    paths = photographs(tmp_path / "waterbird_complete95_forest2water2" / "001.Auk", 60)
    sees_landbird = plain_logits(model, paths, "paper").argmax(axis=1)
    rows, hits = [], {group: [] for group in TRAINING}
    for number, path in enumerate(paths):
        place = number % 2
        y = int(sees_landbird[number]) if number % (3 + place) == 0 else 1 - int(sees_landbird[number])
        rows.append((f"001.Auk/{path.name}", y, 2, place))
        hits[y, place].append((y == 0) == bool(sees_landbird[number]))
    write_table(tmp_path / "waterbird_complete95_forest2water2", rows)
    result, frame = evaluate_set("waterbirds", tmp_path, Checkpoint("tiny", None, model, processor))
    accuracy = {group: np.mean(each) for group, each in hits.items()}
    assert all(hits.values()) and len(set(accuracy.values())) > 1
    assert result.worst_group_top1 == pytest.approx(100 * min(accuracy.values()))
    adjusted = sum(TRAINING[group] * accuracy[group] for group in TRAINING) / sum(TRAINING.values())
    assert result.adjusted_top1 == pytest.approx(100 * adjusted)
    for name in ("worst_group_top1", "adjusted_top1"):
        low, high = getattr(result, f"{name}_ci95")
        assert low <= getattr(result, name) <= high and low < high
    birds, places = ("landbird", "waterbird"), ("land", "water")
    assert {name: each["top1"] for name, each in result.per_group.items()} == pytest.approx(
        {f"{birds[y]} on {places[place]}": 100 * accuracy[y, place] for y, place in TRAINING}
    )
    assert frame["group"].value_counts().sum() == 60


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("../secret.jpg", 0, 2, 0)], "names ../secret.jpg, which is outside"),
        ([("001.Auk/lost.jpg", 0, 2, 0)], "an image in it cannot be read .FileNotFoundError: .*lost.jpg"),
        ([("001.Auk/b.jpg", 2, 2, 0)], "cannot be read .KeyError"),
        ([("001.Auk/b.jpg", 1, 0, 0)], r"has no test image \(split 2\)"),
    ],
)
def test_tables_that_do_not_fit(root, tmp_path, rows, sentence):
    save_image(root.parent / "secret.jpg")
    write_table(root, rows)
    with pytest.raises(UserError, match=f"--dataset waterbirds: .*{sentence}"):
        load_benchmark("waterbirds", str(root), str(tmp_path / "cache"))


def test_a_field_without_end_is_told(root, tmp_path):
    (root / "metadata.csv").write_text(f"img_filename,y,split,place\n{'x' * 200_000},1,2,0\n")
    with pytest.raises(UserError, match=r"metadata.csv or an image in it cannot be read \(Error: field larger than"):
        load_benchmark("waterbirds", str(root), str(tmp_path / "cache"))


def test_a_folder_without_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"metadata.csv .*No such file.* Expected waterbird_complete95"):
        load_benchmark("waterbirds", str(tmp_path), str(tmp_path / "cache"))
