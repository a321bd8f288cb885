"""The suite that is made of a folder: how much is trained on, and what the runs are scored on."""

from pathlib import Path

import pytest
import yaml

from hf_robustvit.errors import UserError
from hf_robustvit.experiments.recipes import OURS, OURS_UNANNOTATED, PLAIN_SWAPPED, RECIPE, RRR, seed_recipes
from hf_robustvit.experiments.suites import CUTOUTS, folder_suite


def test_half_of_the_classes_is_trained_on(tmp_path):
    suite = folder_suite(tmp_path, ["some/model"], [0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    assert suite.settings["num_classes"] == 2 and suite.settings["samples_per_class"] == 2
    assert suite.sample_counts == (1, 2) and suite.class_counts == (1, 2, 3)
    assert "learning_rate" not in suite.settings  # the paper's, for its models
    assert folder_suite(tmp_path, ["m"], [0, 1], learning_rate=1e-5).settings["learning_rate"] == 1e-5


def test_the_other_half_of_the_test_photos_is_for_choosing(tmp_path):
    test = folder_suite(tmp_path, ["m"], [0, 1])
    development = folder_suite(tmp_path, ["m"], [0, 1], development=True)
    assert test.benchmarks["photos"] == "photos" and test.benchmarks["size"] == "composites-size"
    assert development.benchmarks == {title: f"{name}-development" for title, name in test.benchmarks.items()}
    assert (development.segmentation, development.settings) == ("photos-masked-development", test.settings)


def test_every_method_has_settings_for_a_model_of_ones_own(tmp_path):
    suite = folder_suite(tmp_path, [str(tmp_path)], [0, 1])
    assert suite.models == {tmp_path.name: str(tmp_path)}
    settings = dict(RRR.run(suite, str(tmp_path)).settings)
    assert settings["lambda_classification"] == 2e-6 and settings["lambda_background"] == 1e-10  # the paper's Tab. 6
    assert dict(OURS.run(suite, str(tmp_path)).settings)["classification_target"] == "predicted"


def test_tokencut_takes_the_features_of_the_model(tmp_path):
    suite = folder_suite(tmp_path, ["m"], [0, 1])
    assert dict(OURS_UNANNOTATED.run(suite, "m").settings)["backbone"] == "m"
    assert "backbone" not in dict(OURS.run(suite, "m").settings)


def test_seeds_repeat_the_controls_of_a_folder(tmp_path):
    labels = [recipe.label for recipe in seed_recipes(folder_suite(tmp_path, ["m"], [0, 1]))]
    assert labels[:4] == ["Original", "Ours, seed 0", "Ours, seed 1", "Ours, seed 2"]
    assert f"{PLAIN_SWAPPED.label}, seed 2" in labels and len(labels) == 13
    assert len(seed_recipes(CUTOUTS)) == 4


@pytest.mark.parametrize(
    "models, labels, sentence", [([], [0, 1], "needs --models"), (["m"], [3, 3], "has usable photos of 1 class")]
)
def test_a_folder_that_gives_no_suite_is_refused(tmp_path, models, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        folder_suite(tmp_path, models, labels)


def test_the_example_is_the_recipe_with_the_settings_of_a_folder(tmp_path):
    example = yaml.safe_load(Path(__file__).parents[2].joinpath("examples", "photos.yaml").read_text())
    suite = folder_suite(tmp_path, ["m"], [0] * 3 + [1] * 3)
    shared = {name: suite.settings[name] for name in ("samples_per_class", "num_train_epochs", "lr_decay_epochs")}
    assert example == {**RECIPE.settings, "finetuned_share": RECIPE.share, **shared}
