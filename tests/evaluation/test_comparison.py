import numpy as np
import pandas as pd
import pytest

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.comparison import adjust, compare, pair_predictions
from hf_robustvit.evaluation.per_class import changed_confusion, class_changes, lowest_classes, most_changed
from hf_robustvit.metrics import segmentation_scores
from hf_robustvit.metrics.relevance_segmentation import COUNTS


def predictions(correct, classes=None, **columns) -> pd.DataFrame:
    """Images of class 3; the model's first guess is 3 where `correct`, and its fifth where not."""
    right, wrong = [3, 0, 1, 2, 4], [0, 1, 2, 4, 3]
    return pd.DataFrame(
        {
            "image_id": [f"{number:03d}" for number in range(len(correct))],
            "class_name": classes if classes is not None else "c3",
            "label": 3,
            "top5_indices": [right if hit else wrong for hit in correct],
        }
        | columns
    )


def paired(before, after):
    return pair_predictions("set", before, after)


def test_images_are_paired_by_name_whatever_their_order_and_number():
    after = predictions([True, True, False, True])
    before = predictions([False, True, True, False]).iloc[[2, 0, 1]]
    first, second = paired(before, after)
    assert first.index.tolist() == second.index.tolist() == ["000", "001", "002"]
    top1, top5 = compare("set", first, second)
    assert (top1.n, top1.before, top1.after) == (3, pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert (top5.figure, top5.before, top5.difference) == ("top5", 100, 0)


def test_predictions_of_other_images_are_an_error():
    with pytest.raises(UserError, match="--dataset set: .* have no image in common"):
        paired(predictions([True]), predictions([True]).assign(image_id="other"))


def test_a_difference_in_percent_with_its_interval_and_p():
    hits_before, hits_after = np.arange(100) < 50, np.arange(100) < 60
    (top1, _) = compare("set", *paired(predictions(hits_before), predictions(hits_after)))
    assert (top1.dataset, top1.figure, top1.classes) == ("set", "top1", "all")
    assert (top1.before, top1.after, top1.difference) == (50, 60, pytest.approx(10))
    assert top1.interval == "score"
    assert top1.interval95 == pytest.approx((5.5229, 17.4366), abs=1e-3), "Wilson's of 10 %, as no image got worse"
    assert top1.p == pytest.approx(2 / 2**10)


def test_training_and_held_out_classes_are_the_models_for_both():
    training = np.arange(100) % 2 == 0
    before, after = predictions(np.zeros(100, bool)), predictions(training, training_class=training)
    by_classes = {item.classes: item for item in compare("set", *paired(before, after)) if item.figure == "top1"}
    assert [(name, item.n, item.before, item.after) for name, item in by_classes.items()] == [
        ("all", 100, 0, 50),
        ("training", 50, 0, 100),
        ("held-out", 50, 0, 0),
    ]


def test_figures_that_one_model_lacks_are_left_out():
    subset = [[3, 0, 1, 2, 4]] * 4
    before = predictions([True] * 4)
    after = predictions([False] * 4, subset_top5_indices=subset)
    assert [item.figure for item in compare("set", *paired(before, after))] == ["top1", "top5"]
    before["subset_top5_indices"] = subset
    assert {item.figure for item in compare("set", *paired(before, after))} >= {"top1_subset", "top5_subset"}


def test_segmentation_is_compared_by_resampling_images():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 50, size=(60, 7)).astype(float)
    counts[:, 0] = 100
    better = counts + np.array([0, 40, 5, 5, 0, 0, 1])
    frames = [
        pd.DataFrame(values, columns=list(COUNTS)).assign(image_id=list(map(str, range(60))))
        for values in (counts, better)
    ]
    differences = compare("set", *paired(*frames))
    assert [item.figure for item in differences] == ["pixel_accuracy", "mean_iou", "mean_average_precision"]
    pixel_accuracy, mean_iou, _ = differences
    assert pixel_accuracy.difference == pytest.approx(40)
    assert pixel_accuracy.interval == "bootstrap"
    assert pixel_accuracy.interval95 == pytest.approx((40, 40)), "every image gained as much"
    assert mean_iou.before == pytest.approx(100 * segmentation_scores(counts)["mean_iou"])
    assert mean_iou.interval95[0] < mean_iou.difference < mean_iou.interval95[1]
    adjust(differences)
    assert pixel_accuracy.p_holm is None and pixel_accuracy.significant


def test_other_backgrounds_are_tested_like_accuracies_and_shares_by_resampling():
    rng = np.random.default_rng(0)
    hits = np.arange(80) < 40
    shares = rng.random(80)
    before = predictions(hits, top1_grey_background=~hits, top1_oracle=hits, insertion=shares)
    after = predictions(hits, top1_grey_background=np.arange(80) >= 30, insertion=shares + 0.1, deletion=shares)
    by_figure = {item.figure: item for item in compare("set", *paired(before, after))}
    assert set(by_figure) == {"top1", "top5", "top1_grey_background", "insertion"}, "only what both models have"
    grey, insertion = by_figure["top1_grey_background"], by_figure["insertion"]
    assert (grey.before, grey.after, grey.p) == (50, 62.5, pytest.approx(2 / 2**10))
    assert insertion.before == pytest.approx(100 * shares.mean()) and insertion.difference == pytest.approx(10)
    assert insertion.interval95 == pytest.approx((10, 10)), "every image gained as much"
    assert insertion.p is None and (grey.interval, insertion.interval) == ("score", "bootstrap")
    adjust([insertion])
    assert insertion.significant


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
@pytest.mark.parametrize("repeats", [1, 4])
def test_five_images_or_objects_that_move_alike_are_not_called_significant(count, significant, repeats):
    objects = np.repeat([f"object {number}" for number in range(count)], repeats)
    before, after = (predictions([True] * count * repeats, object=objects, insertion=value) for value in (0.1, 0.2))
    insertion = {item.figure: item for item in compare("set", *paired(before, after))}["insertion"]
    adjust([insertion])
    assert insertion.significant == significant


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
@pytest.mark.parametrize("repeats", [1, 4])
def test_a_star_takes_six_images_or_objects_that_changed(count, significant, repeats):
    rows = np.repeat(np.arange(20), repeats)
    counts = pd.DataFrame(40.0, index=range(len(rows)), columns=list(COUNTS)).assign(average_precision=0.5)
    before = predictions(rows < 10, object=rows, insertion=0.5, **counts)
    more = counts.assign(pixels_correct=40.0 - 20 * (rows < count), average_precision=0.6)
    after = predictions(rows < 10, object=rows, insertion=0.5 + 0.3 * (rows < count), **more)
    by_figure = {item.figure: item for item in compare("set", *paired(before, after))}
    assert by_figure["insertion"].interval95[0] > 0 > by_figure["pixel_accuracy"].interval95[1]
    assert by_figure["insertion"].significant == by_figure["pixel_accuracy"].significant == significant
    assert by_figure["mean_average_precision"].significant, "which changed in every image"


def test_objects_that_repeat_are_kept_whole_in_every_figure():
    rng = np.random.default_rng(0)
    objects = np.repeat([f"object {number}" for number in range(20)], 5)
    better = np.repeat(np.arange(20) < 8, 5)  # eight objects, all their images
    counts = pd.DataFrame(rng.integers(20, 50, size=(100, 7)).astype(float), columns=list(COUNTS))
    more = counts.assign(pixels_correct=counts["pixels_correct"] + 20 * better)
    shared = {"object": objects, "training_class": np.arange(100) < 50, "insertion": 0.5 * better}
    before = predictions(np.zeros(100, bool), object=objects, insertion=0.0, **counts)
    after = predictions(better, **shared, **more)
    grouped, single = (
        {(item.figure, item.classes): item for item in compare("set", *paired(*pair))}
        for pair in ((before, after), (before.drop(columns="object"), after.drop(columns="object")))
    )
    top1, by_image = grouped["top1", "all"], single["top1", "all"]
    assert (top1.interval, top1.test) == ("group bootstrap", "sign-flip")
    assert (by_image.interval, by_image.test) == ("score", "mcnemar")
    assert top1.p == pytest.approx(2 / 2**8) and by_image.p == pytest.approx(2 / 2**40)
    assert grouped["top1", "training"].test == "sign-flip" and grouped["top1", "training"].n == 50
    for key in (("top1", "all"), ("insertion", "all"), ("pixel_accuracy", "all")):
        assert grouped[key].interval == "group bootstrap" and grouped[key].difference == single[key].difference
        wide, narrow = (np.diff(item[key].interval95)[0] for item in (grouped, single))
        assert 1.7 < wide / narrow < 3.2, "five images of an object tell as much as one: sqrt(5)"
    assert grouped["insertion", "all"].test is None
    once = (frame.assign(object=range(100)) for frame in (before, after))
    assert {item.interval for item in compare("set", *paired(*once))} == {"score", "bootstrap"}


def test_holm_runs_over_the_data_sets_of_one_figure():
    gains, differences = (6, 7, 9), []
    for gain in gains:
        pair = paired(predictions([False] * 40), predictions(np.arange(40) < gain))
        differences += compare(f"set{gain}", *pair)
    adjust(differences)
    top1 = [item for item in differences if item.figure == "top1"]
    p = [2 / 2**gain for gain in gains]
    assert [item.p for item in top1] == pytest.approx(p)
    assert [item.p_holm for item in top1] == pytest.approx([max(p[0], 2 * p[1]), 2 * p[1], 3 * p[2]])
    assert all(item.significant for item in top1)
    assert all(item.p_holm == 1 and not item.significant for item in differences if item.figure == "top5")


def test_class_changes_are_sorted_and_split():
    classes = ["cat"] * 4 + ["dog"] * 2 + ["emu"] * 4
    before = predictions([1, 0, 0, 0, 1, 1, 1, 0, 0, 0], classes)
    after = predictions([1, 1, 1, 0, 1, 0, 0, 1, 0, 0], classes)
    changes = class_changes(*paired(before, after))
    assert changes.to_dict("list") == {
        "class_name": ["cat", "emu", "dog"],
        "n": [4, 4, 2],
        "before": [25, 25, 100],
        "after": [75, 25, 50],
        "difference": [50, 0, -50],
    }
    improved, harmed = most_changed(changes)
    assert improved["class_name"].tolist() == ["cat"] and harmed["class_name"].tolist() == ["dog"]


def test_at_most_fifty_classes_of_each_kind_strongest_first():
    changes = pd.DataFrame({"class_name": range(140), "n": 1, "difference": np.arange(70, -70, -1)})
    improved, harmed = most_changed(changes)
    assert improved["difference"].tolist() == list(range(70, 20, -1))
    assert harmed["difference"].tolist() == list(range(-69, -19))


def guesses(names):
    """Sixteen images, four each of the classes a to d, which the model calls 10 to 13; ? is another of its classes."""
    indices = [{"a": 10, "b": 11, "c": 12, "d": 13, "?": 99}[name] for name in names]
    classes = list("aaaabbbbccccdddd")
    return pd.DataFrame(
        {
            "image_id": [str(number) for number in range(16)],
            "class_name": classes,
            "label": [10 + "abcd".index(name) for name in classes],
            "top5_indices": [[index, 0] for index in indices],
        }
    )


def test_the_confusions_of_the_classes_that_changed_most():
    before, after = paired(guesses("aabbbbb?ccccdddd"), guesses("aaabbb?accccddda"))
    # Changed: b to a, b to ?, ? to a and d to a: that is b three times, a three times and d once.
    confusion = changed_confusion(before, after, count=2)
    assert confusion.classes == ["a", "b"]
    assert confusion.before == [[2, 2, 0], [0, 3, 1]] and confusion.after == [[3, 1, 0], [1, 2, 1]]
    confusion = changed_confusion(before, after)
    assert confusion.classes == ["a", "b", "d"], "nothing of c changed"
    assert confusion.after == [[3, 1, 0, 0], [1, 2, 0, 1], [1, 0, 3, 0]]
    assert changed_confusion(before, before) is None


def test_confusions_of_models_with_other_indices():
    renamed = guesses("aaaabbbbccccdddd")
    renamed["label"] -= 10
    renamed["top5_indices"] = [[indices[0] - 10] for indices in renamed["top5_indices"]]
    assert changed_confusion(*paired(guesses("aaaabbbbccccdddd"), renamed)) is None


def test_the_lowest_of_the_classes_of_ten_images():
    per_class = {name: {"top1": top1, "n": n} for name, top1, n in (("a", 9.0, 9), ("b", 70.0, 10), ("c", 20.0, 11))}
    assert [name for name, _ in lowest_classes(per_class)] == ["c", "b"]
    assert [name for name, _ in lowest_classes(per_class, 1)] == ["c"]
