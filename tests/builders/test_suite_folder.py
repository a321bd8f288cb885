"""A folder of photos as an experiment takes it: which photos train, which choose settings, which are the test."""

import pytest
from photo_folder import save_photos
from PIL import Image

from hf_robustvit.builders.suite_folder import SuiteFolder, is_for_development
from hf_robustvit.errors import UserError


CLASSES = ("ant", "bee")


@pytest.fixture
def folder(tmp_path):
    save_photos(tmp_path / "train", CLASSES, count=3)
    save_photos(tmp_path / "test", CLASSES, count=8, seed=1)
    return tmp_path


def test_the_two_halves_of_the_test_photos_are_fixed_by_their_names(folder):
    # SHA-256 begins with 150 for "ant/0.png" and with 183 for "ant/3.png".
    assert [is_for_development(name) for name in ("ant/0.png", "ant/3.png")] == [True, False]
    suite = SuiteFolder(folder)
    test, development = (suite.benchmark(name).rows["image_id"][:] for name in ("photos", "photos-development"))
    assert test and development and not set(test) & set(development)
    assert len(test) + len(development) == 16
    (folder / "test" / "images" / "ant" / test[0].split("/")[1]).unlink()
    assert suite.benchmark("photos-development").rows["image_id"][:] == development


def test_photos_are_scored_with_and_without_masks(folder):
    suite = SuiteFolder(folder)
    plain, masked = suite.benchmark("photos"), suite.benchmark("photos-masked")
    assert (plain.name, plain.tests_masks, "mask" in plain.rows.column_names) == ("photos", False, False)
    assert (masked.name, masked.tests_masks, "mask" in masked.rows.column_names) == ("photos-masked", True, True)
    assert plain.is_own_folder and masked.is_own_folder
    assert suite.validation_pairs()["image_id"][:] == suite.benchmark("photos-masked-development").rows["image_id"][:]


def test_objects_of_composites_come_from_one_half(folder):
    suite = SuiteFolder(folder)
    for name, development in (("composites-size", False), ("composites-size-development", True)):
        found = suite.benchmark(name)
        assert found.name == name and found.render
        assert {is_for_development(photo) for photo in found.rows["object"]} == {development}
    assert None not in suite.benchmark("composites-background").rows["background_mask"][:]  # other photos
    (folder / "backgrounds").mkdir()
    Image.new("RGB", (64, 48), "green").save(folder / "backgrounds" / "meadow.png")
    assert set(suite.benchmark("composites-background").rows["background"]) == {"meadow.png"}


def test_only_masks_that_were_judged_good_are_used(folder):
    for part in ("train", "test"):
        lines = [f"{name}/{number}.png,{int(number != 1)}" for name in CLASSES for number in range(8)]
        (folder / part / "masks.csv").write_text("\n".join(["image,kept", *lines]))
    suite = SuiteFolder(folder)
    assert suite.training_pairs()["image_id"][:] == ["ant/0.png", "ant/2.png", "bee/0.png", "bee/2.png"]
    assert "ant/1.png" not in suite.validation_pairs()["image_id"][:]
    assert "ant/1.png" in suite.benchmark("photos-development").rows["image_id"][:]  # it has no mask to be judged


def test_photos_whose_mask_is_missing_or_empty_have_no_masks(folder):
    names = SuiteFolder(folder).benchmark("photos-masked").rows["image_id"][:]
    (folder / "test" / "masks" / names[0]).unlink()
    left = SuiteFolder(folder)
    assert left.benchmark("photos-masked").rows["image_id"][:] == names[1:]
    assert names[0] in left.benchmark("photos").rows["image_id"][:]


@pytest.mark.parametrize(
    "table, sentence",
    [
        ("image,kept\nant/0.png,0\n", "masks.csv keeps no mask at all"),
        ("file,good\n", "masks.csv cannot be read"),
        ("image,kept\nant/0.png,yes\n", "masks.csv cannot be"),
        (f"image,kept\nant/0.png,{10**400}\n", "masks.csv cannot be"),
        ("image,kept\na,1\nb,1,2,3\n", r"masks.csv cannot be read \(ParserError: .*saw 4\): expected the columns"),
    ],
)
def test_a_table_of_judgements_that_does_not_fit_is_refused(folder, table, sentence):
    (folder / "train" / "masks.csv").write_text(table)
    with pytest.raises(UserError, match=sentence):
        SuiteFolder(folder).training_pairs()


def test_a_folder_needs_both_parts(tmp_path):
    save_photos(tmp_path / "train", CLASSES)
    with pytest.raises(UserError, match="has no folder 'test'"):
        SuiteFolder(tmp_path)


def test_a_half_without_photos_is_refused(folder):
    for path in (folder / "test" / "images").rglob("*.png"):
        if is_for_development(f"{path.parent.name}/{path.name}"):
            path.unlink()
    suite = SuiteFolder(folder)
    assert len(suite.benchmark("photos").rows) > 0
    with pytest.raises(UserError, match="none of the . photos of test that can be used is for development"):
        suite.validation_pairs()
