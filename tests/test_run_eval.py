"""run_eval.py on a folder of one's own: the files it leaves, the table it prints, and each mistake's sentence."""

import json
import shutil

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from PIL import Image, ImageOps
from planted_benchmarks import photographs, plain_logits, vit

import run_eval
from hf_robustvit.builders import benchmark_names
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError


CLASSES = ("c2", "c5", "c7", "c8")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with two models, the second with a record of its training, and the images of four of 12 classes."""
    root = tmp_path_factory.mktemp("workshop")
    for name, seed in (("before", 0), ("after", 1)):
        model, image_processor = vit(12, seed=seed)
        model.save_pretrained(root / name)
        image_processor.save_pretrained(root / name)
    (root / "after" / "robustvit.json").write_text(json.dumps({"training_classes": ["c2", "c8", "c11"]}))
    model, _ = vit(12, seed=1)
    paths = photographs(root / "all", count=60)
    for path, logits in zip(paths, plain_logits(model, paths, "paper"), strict=True):
        # The second model is right more often than chance, and not always.
        best = max(CLASSES, key=lambda name: logits[int(name[1:])])
        name = best if int(path.stem) % 3 else CLASSES[int(path.stem) % 4]
        (root / "pets" / "images" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "pets" / "images" / name)
    return root


def evaluate(workshop, output_dir, *flags) -> None:
    arguments = ("--model", workshop / "after", "--output_dir", output_dir, "--num_workers", 0, *flags)
    run_eval.main(*parse_settings(run_eval.EvaluationArguments, MaskReading, arguments=list(map(str, arguments))))


def test_one_model_on_a_folder(workshop, tmp_path, capsys):
    evaluate(workshop, tmp_path, "--dataset", workshop / "pets", "--preprocessing", "paper")
    result = json.loads((tmp_path / "pets.json").read_text())
    assert result["num_images"] == 60 and set(result["per_class"]) == set(CLASSES)
    assert result["top1"] < result["top1_subset"] and result["top1_subset"] > 60
    table, _, _ = capsys.readouterr().out.partition("\n\n")  # what to type next follows
    assert f"{result['top1_subset']:.2f}" in table and "| pets " in table
    assert table.strip() in (tmp_path / "results.md").read_text()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"pets.json", "pets.predictions.parquet", "results.md", "overlays/pets.png"}


def test_photos_that_the_model_was_trained_on_are_told(workshop, tmp_path, caplog):
    model = shutil.copytree(workshop / "after", tmp_path / "after")
    names = [str(path.relative_to(workshop / "pets" / "images")) for path in (workshop / "pets").rglob("*.png")]
    for training_set, told in (("elsewhere/pets", True), ("elsewhere/train", False)):
        record = {"dataset": training_set, "training_images": [*names[:9], "c2/other.png"]}
        (model / "robustvit.json").write_text(json.dumps(record))
        caplog.clear()
        evaluate(workshop, tmp_path / "out", "--model", model, "--dataset", workshop / "pets")
        assert ("--dataset pets: the model was trained on 9 of its 60 images, by their names" in caplog.text) == told


def test_rule_and_size_are_told(workshop, tmp_path):
    folder = with_masks(workshop, tmp_path / "masked")
    evaluate(workshop, tmp_path / "usual", "--dataset", folder)
    flags = ("--relevance_method", "libra", "--input_size", 48, "--report")
    evaluate(workshop, tmp_path / "other", "--dataset", folder, *flags)
    usual, other = (json.loads((tmp_path / name / "masked.json").read_text()) for name in ("usual", "other"))
    assert other["protocol"] == usual["protocol"] | {"relevance_method": "libra", "input_size": 48}
    assert other["relevance_in_mask"] != usual["relevance_in_mask"]
    assert other["relevance_in_mask_rollout"] != other["relevance_in_mask"]
    assert "Maps are made by the rule libra." in (tmp_path / "other" / "results.md").read_text()
    assert "48 pixels a side, maps by libra" in (tmp_path / "other" / "report.html").read_text()


def test_backgrounds_without_composites_are_refused(workshop, tmp_path):
    with pytest.raises(UserError, match="--backgrounds is for composites"):
        evaluate(workshop, tmp_path, "--dataset", workshop / "pets", "--backgrounds", workshop / "pets")


def test_two_models_are_compared(workshop, tmp_path, capsys):
    shutil.copytree(workshop / "pets", tmp_path / "copy")
    for path in sorted((tmp_path / "copy" / "images" / "c2").iterdir())[:2]:
        path.unlink()
    sets = (workshop / "pets", tmp_path / "copy")
    evaluate(workshop, tmp_path / "out", "--baseline", workshop / "before", "--dataset", *sets)

    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (stored["model"], stored["baseline"]) == (str(workshop / "after"), str(workshop / "before"))
    rows = {(row["dataset"], row["figure"], row["classes"]): row for row in stored["differences"]}
    assert {key[0] for key in rows} == {"pets", "copy"}
    for name in ("pets", "copy"):
        before = json.loads((tmp_path / "out" / "baseline" / f"{name}.json").read_text())
        after = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        for figure in ("top1", "top5", "top1_subset", "top5_subset"):
            row = rows[name, figure, "all"]
            assert (row["before"], row["after"]) == (pytest.approx(before[figure]), pytest.approx(after[figure]))
            assert row["difference"] == pytest.approx(after[figure] - before[figure])
            assert row["p"] <= row["p_holm"] <= 1
        for classes, key in (("training", "train_classes"), ("held-out", "held_out_classes")):
            assert rows[name, "top1", classes]["after"] == pytest.approx(after[key]["top1"])
            assert rows[name, "top1", classes]["n"] == after[key]["n"]
        assert before["train_classes"] is None
        assert (after["group"], after["interval"]) == (None, "score") and rows[name, "top1", "all"][
            "interval"
        ] == "score"

    changes = pd.read_csv(tmp_path / "out" / "per_class" / "pets.csv")
    per_class = json.loads((tmp_path / "out" / "pets.json").read_text())["per_class"]
    assert {row.class_name: row.after for row in changes.itertuples()} == pytest.approx(
        {name: figures["top1"] for name, figures in per_class.items()}
    )
    assert changes["difference"].is_monotonic_decreasing
    for name in ("pets.png", "copy.png", "groups-top1.png", "groups-top5.png"):
        with Image.open(tmp_path / "out" / "per_class" / name) as picture:
            assert picture.width > 500
    table, _, _ = capsys.readouterr().out.partition("\n\n")  # what to type next follows
    assert "Holm p" in table and f"{rows['pets', 'top1', 'all']['difference']:+.2f}" in table
    report = (tmp_path / "out" / "results.md").read_text()
    assert "## Training and held-out classes" in report and table.strip() in report


def with_masks(workshop, folder):
    """The folder with a mask for each image, the left half of it as it is displayed: some are turned by their EXIF."""
    shutil.copytree(workshop / "pets", folder)
    for path in (folder / "images").rglob("*.*"):
        with Image.open(path) as image:
            mask = Image.new("L", ImageOps.exif_transpose(image).size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        target = folder / "masks" / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        mask.save(target)
    return folder


def test_a_folder_with_masks_tells_whether_the_model_changed(workshop, tmp_path, caplog):
    folder = with_masks(workshop, tmp_path / "masked")
    flags = ("--dataset", folder, workshop / "pets", "--oracle")
    evaluate(workshop, tmp_path / "out", *flags, "--baseline", workshop / "before")
    result = json.loads((tmp_path / "out" / "masked.json").read_text())
    figures = ("relevance_in_mask", "insertion", "deletion", "top1_grey_background", "top1_swapped_background")
    predictions = pd.read_parquet(tmp_path / "out" / "masked.predictions.parquet")
    for figure in (*figures, "top1_oracle"):
        assert result[figure] == pytest.approx(100 * predictions[figure].mean())
        assert json.loads((tmp_path / "out" / "pets.json").read_text())[figure] is None
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["differences"]
    rows = {row["figure"]: row for row in rows if row["dataset"] == "masked" and row["classes"] == "all"}
    assert all(rows[figure]["after"] == pytest.approx(result[figure]) for figure in figures)
    assert rows["insertion"]["p"] is None and rows["top1_grey_background"]["p"] is not None
    assert result["interval"] == "score"
    report = (tmp_path / "out" / "results.md").read_text()
    section = report.split("## Did the model change, or only its map?")[1]
    assert all(f"| {figure} " in section for figure in figures)
    headroom = result["top1_oracle"] - result["top1"]
    assert f"{headroom:+.2f}" in section.split("## What a perfect map could gain")[1]

    evaluate(workshop, tmp_path / "alone", "--dataset", folder)
    section = (tmp_path / "alone" / "results.md").read_text().split("## Did the model change, or only its map?")[1]
    assert f"{result['deletion']:.2f}" in section and "perfect map" not in section


def test_faithfulness_is_measured_where_it_is_asked_for_and_then_kept(workshop, tmp_path, caplog, monkeypatch, capsys):
    folder = with_masks(workshop, tmp_path / "masked")
    caplog.set_level("INFO")
    flags = ("--dataset", folder, workshop / "pets", "--model", workshop / "after", "--batch_size", 60)
    figures = ("relevance_in_mask_occlusion", "saco", "foreground_sensitivity")
    evaluate(workshop, tmp_path / "out", *flags)
    plain = json.loads((tmp_path / "out" / "masked.json").read_text())
    assert [plain[figure] for figure in figures] == [None] * 3 and plain["ece_ci95"][0] <= plain["ece"]
    assert 0 <= plain["rank_accuracy"] <= 100 and 0 <= plain["pointing_game"] <= 100

    capsys.readouterr()
    evaluate(workshop, tmp_path / "out", *flags, "--faithfulness")
    header = capsys.readouterr().out.splitlines()[0]
    assert all(figure in header for figure in figures)
    assert "masked has no SaCo" in caplog.text and "pets has no" not in caplog.text
    asked = json.loads((tmp_path / "out" / "masked.json").read_text())
    predictions = pd.read_parquet(tmp_path / "out" / "masked.predictions.parquet")
    assert asked["saco"] == pytest.approx(100 * predictions["saco"].mean())
    foreground, background = (100 * predictions[f"{part}_noise"].mean() for part in ("foreground", "background"))
    room = min(foreground + background, 200 - foreground - background)
    assert asked["foreground_sensitivity"] == pytest.approx(100 * (background - foreground) / room)
    low, high = asked["foreground_sensitivity_ci95"]
    assert -100 <= low < asked["foreground_sensitivity"] < high <= 100
    section = (tmp_path / "out" / "results.md").read_text().split("## Did the model change, or only its map?")[1]
    assert f"{asked['foreground_sensitivity']:.2f} [{low:.2f}, {high:.2f}]" in section

    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
    monkeypatch.setattr("hf_robustvit.commands.evaluate._draw_overlays", lambda *_: None)
    for flags_again in (flags, (*flags, "--faithfulness")):
        evaluate(workshop, tmp_path / "out", *flags_again)


def test_class_folders_themselves_are_evaluated_without_masks(workshop, tmp_path, caplog):
    evaluate(workshop, tmp_path / "out", "--dataset", workshop / "pets" / "images")
    assert "images is evaluated without masks: it has no folder 'masks'" in caplog.text
    evaluate(workshop, tmp_path / "usual", "--dataset", workshop / "pets")
    bare, usual = (json.loads((tmp_path / name).read_text()) for name in ("out/images.json", "usual/pets.json"))
    assert bare["num_images"] == usual["num_images"] == 60 and bare["top1"] == usual["top1"]


def test_a_folder_whose_masks_are_of_other_images_is_refused(workshop, tmp_path):
    folder = with_masks(workshop, tmp_path / "masked")
    shutil.rmtree(folder / "masks")
    (folder / "masks").mkdir()
    with pytest.raises(UserError, match="60 of 60 images have no mask in .*masked/masks"):
        evaluate(workshop, tmp_path / "out", "--dataset", folder)
    (folder / "masks").rmdir()
    (folder / "masks").symlink_to("nowhere")
    with pytest.raises(UserError, match="has no folder 'masks' in it"):
        evaluate(workshop, tmp_path / "out", "--dataset", folder)


def test_a_folder_where_a_mask_is_missing_is_evaluated_without_masks(workshop, tmp_path, caplog):
    folder = with_masks(workshop, tmp_path / "masked")
    next((folder / "masks").rglob("*.png")).unlink()
    evaluate(workshop, tmp_path / "out", "--dataset", folder)
    assert "is evaluated without masks: 1 of 60 images have no mask" in caplog.text
    result = json.loads((tmp_path / "out" / "masked.json").read_text())
    assert result["num_images"] == 60 and result["insertion"] is None


def test_masks_that_leave_the_object_open_stop_before_the_first_batch(workshop, tmp_path, monkeypatch):
    folder = with_masks(workshop, tmp_path / "masked")
    evaluate(workshop, tmp_path / "white", "--dataset", folder)
    for path in (folder / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            Image.eval(mask, lambda value: 1 if value else 2).save(path)  # 1 the object, 2 its background
    with monkeypatch.context() as patch:
        patch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
        with pytest.raises(
            UserError, match="60 of 60 evaluation pairs cannot be used: 60 masks do not show what the object is"
        ):
            evaluate(workshop, tmp_path / "out", "--dataset", folder)
    evaluate(workshop, tmp_path / "out", "--dataset", folder, "--mask_foreground", 1)
    white, grey = (json.loads((tmp_path / name / "masked.json").read_text()) for name in ("white", "out"))
    assert grey["protocol"]["mask_foreground"] == ["1"] and "mask_foreground" not in white["protocol"]
    for figure in ("mean_iou", "relevance_in_mask", "insertion", "top1_grey_background"):
        assert grey[figure] == white[figure]


def test_a_second_run_calls_no_model(workshop, tmp_path, monkeypatch):
    flags = ("--dataset", workshop / "pets", "--baseline", workshop / "before")
    evaluate(workshop, tmp_path, *flags)
    times = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("pets.*") if path.suffix in (".json", ".parquet")
    }
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
    evaluate(workshop, tmp_path, *flags)
    assert len(times) == 4 and all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_file_of_settings(workshop, tmp_path):
    settings = {"model": str(workshop / "after"), "dataset": [str(workshop / "pets")], "output_dir": str(tmp_path)}
    (tmp_path / "flags.yaml").write_text(json.dumps(settings | {"num_workers": 0, "batch_size": 16}))
    (arguments,) = parse_settings(run_eval.EvaluationArguments, arguments=[str(tmp_path / "flags.yaml")])
    run_eval.main(arguments)
    assert (tmp_path / "pets.json").is_file()


def test_an_output_folder_that_cannot_be_written_stops_before_the_work(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hf_robustvit.evaluation.checkpoint.load_classifier", lambda *_: pytest.fail("a model was loaded")
    )
    (tmp_path / "file").write_text("")
    for output_dir in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(UserError, match=f"--output_dir {output_dir} cannot be written to \\(Not a directory\\)"):
            evaluate(workshop, output_dir, "--dataset", workshop / "pets")


def test_groups_are_what_fits_the_model():
    cutouts = benchmark_names(["cutouts"], for_imagenet=False)
    assert cutouts == benchmark_names(["all", "cutouts-val"], for_imagenet=False)
    assert len(cutouts) >= 10 and all(name.startswith("cutouts-") for name in cutouts)
    assert not set(benchmark_names(["all"], for_imagenet=True)) & set(cutouts)


def test_an_unknown_data_set_gets_a_suggestion():
    with pytest.raises(UserError, match="--dataset: there is no 'cutouts-sketsh'. Did you mean cutouts-sketch"):
        benchmark_names(["cutouts-sketsh"], for_imagenet=False)


def test_classes_the_model_does_not_know_stop_before_the_first_batch(workshop, tmp_path, monkeypatch):
    shutil.copytree(workshop / "pets", tmp_path / "other")
    (tmp_path / "other" / "images" / "c5").rename(tmp_path / "other" / "images" / "emu")
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(UserError, match="--dataset other: 1 of its 4 classes .* 12 classes of the model.*'emu'"):
        evaluate(workshop, tmp_path / "out", "--dataset", workshop / "pets", tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_two_folders_of_one_name_are_refused(workshop, tmp_path):
    shutil.copytree(workshop / "pets", tmp_path / "pets")
    with pytest.raises(UserError, match="two folders have the same name"):
        evaluate(workshop, tmp_path / "out", "--dataset", workshop / "pets", tmp_path / "pets")


def test_results_are_pushed_to_models_of_the_hub_only(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(UserError, match="--push_to_hub adds results to a model on the Hub, which '.*after' is not"):
        evaluate(workshop, tmp_path / "out", "--dataset", workshop / "pets", "--push_to_hub")


def test_a_local_models_card_gets_the_results_when_asked(workshop, tmp_path):
    shutil.copytree(workshop / "after", tmp_path / "model")
    flags = ("--model", tmp_path / "model", "--dataset", workshop / "pets", "--baseline", workshop / "before")
    evaluate(workshop, tmp_path / "out", *flags)
    assert not (tmp_path / "model" / "README.md").exists() and not (tmp_path / "model" / "results").exists()
    with pytest.raises(UserError, match="--update_card .* and --model 'cutouts-vit' is not a folder"):
        evaluate(workshop, tmp_path / "out", *flags, "--update_card", "--model", "cutouts-vit")

    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n\n# model\n")
    evaluate(workshop, tmp_path / "out", *flags)
    assert (tmp_path / "model" / "README.md").read_text() == "---\nlicense: mit\n---\n\n# model\n"
    assert not (tmp_path / "model" / "results").exists()

    evaluate(workshop, tmp_path / "out", *flags, "--update_card")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    result = json.loads((tmp_path / "out" / "pets.json").read_text())
    assert json.loads((tmp_path / "model" / "results" / "pets.json").read_text()) == result
    assert card.data.license == "mit" and card.data.eval_results[0].metric_value == round(result["top1"], 2)
    assert "Before is before, after is this model" in card.text and "| training " in card.text
