"""run_finetune.py as a user starts it: a folder of photos and masks, and each mistake's sentence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import run_forked
from golden_numbers import relative_error
from photo_folder import finetune, save_model, save_photos
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_model
from transformers import pipeline

import run_finetune
from hf_robustvit.builders import load_training_pairs
from hf_robustvit.commands.finetune import FinetuneArguments, fit, recorded_classes
from hf_robustvit.commands.settings import exit_on_user_error
from hf_robustvit.data import choose_training_images
from hf_robustvit.imagenet_classes import LEMMAS, NAMES
from hf_robustvit.models.loading import load_classifier
from hf_robustvit.relevance import explain


ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """Three classes of five images, a bright square on a dark ground, and its mask."""
    return save_photos(tmp_path / "data")


@pytest.fixture
def model_dir(tmp_path):
    """A classifier of five classes that are none of the folder's."""
    return save_model(tmp_path / "model")


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "run_finetune.py", *map(str, arguments), "--use_cpu"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_a_folder_of_ones_own_trains_a_model_with_its_own_labels(folder, model_dir, tmp_path):
    out = tmp_path / "out"
    done = run(
        *("--model", model_dir, "--dataset", folder, "--output_dir", out, "--num_train_epochs", 2),
        *("--num_classes", 2, "--class_seed", 0, "--samples_per_class", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "it gets a new one for 3 classes" in done.stderr
    assert "classification_target was left out and is set to label (for a new head)" in done.stderr
    assert "is trained with lean attention" in done.stderr
    assert "| relevance_in_mask" in done.stdout
    with Image.open(out / "relevance.png") as picture:
        assert picture.width > 300

    record = json.loads((out / "robustvit.json").read_text())
    assert record["method"] == "robustvit" and record["base_model"] == str(model_dir)
    assert len(record["training_classes"]) == 2 and len(record["held_out_classes"]) == 1
    assert set(record["training_classes"]) | set(record["held_out_classes"]) == {"ant", "bee", "cow"}
    assert len(record["training_images"]) == 4
    assert all(image.split("/")[0] in record["training_classes"] for image in record["training_images"])
    assert [image.split("/")[0] for image in record["validation_images"]] == record["held_out_classes"]
    assert (record["mask_source"], record["class_seed"]) == ("annotated", 0)

    classify = pipeline("image-classification", model=str(out))
    answer = classify(str(folder / "images" / "ant" / "0.png"))
    assert {item["label"] for item in answer} == {"ant", "bee", "cow"}


def test_a_backbone_gets_a_head_and_loses_its_problem_type(folder, tmp_path):
    backbone, out = save_model(tmp_path / "backbone"), tmp_path / "out"
    tiny_model("vit").vit.save_pretrained(backbone)  # without a head, and with the labels of a former one
    settings = json.loads((backbone / "config.json").read_text())
    settings |= {"problem_type": "multi_label_classification", "id2label": {0: "ant", 1: "bee", 2: "cow", 3: "dog"}}
    (backbone / "config.json").write_text(json.dumps(settings))
    done = run("--model", backbone, "--dataset", folder, "--output_dir", out, "--max_steps", 1)
    assert done.returncode == 0, done.stderr
    assert "has no head: it gets a new one for 3 classes" in done.stderr
    assert "was trained for multi_label_classification; each image here has one class" in done.stderr
    image = folder / "images" / "ant" / "0.png"
    answer = pipeline("image-classification", model=str(out))(str(image))
    assert sum(item["score"] for item in answer) == pytest.approx(1, abs=1e-4)
    model, image_processor = load_classifier(out)
    with Image.open(image) as picture, torch.no_grad():
        logits = model(**image_processor(picture.convert("RGB"), return_tensors="pt")).logits[0]
    probabilities = dict(zip(model.config.id2label.values(), logits.softmax(dim=0).tolist(), strict=True))
    assert {item["label"]: item["score"] for item in answer} == pytest.approx(probabilities, abs=2e-2)


def test_two_classes_of_one_name_are_told_apart_in_the_record(tmp_path):
    data = save_photos(tmp_path / "data", classes=("n02012849", "n01440764", "n03126707"))
    records = []
    for labels in (NAMES, LEMMAS):
        model = tiny_model("vit", num_labels=1000)
        model.config.id2label = dict(enumerate(labels))
        model_dir = save_model(tmp_path / "model")
        model.save_pretrained(model_dir)
        arguments = FinetuneArguments(model=str(model_dir), dataset=str(data), num_classes=2)
        _, _, pairs, new_head = fit(arguments, load_training_pairs(str(data)), needs_eager=False)
        selection = choose_training_images(pairs["label"], pairs["image_id"], pairs.features["label"].names, 2, 1)
        records.append((selection.training_classes, recorded_classes(selection, model.config)))
        assert not new_head
    assert records[0][0] == ("tench", "crane (bird)")
    assert records[1][0] == ("tench, Tinca tinca", "crane (134)")
    assert (
        records[0][1]
        == records[1][1]
        == {
            "training_class_indices": [0, 134],
            "held_out_class_indices": [517],
            "training_class_wnids": ["n01440764", "n02012849"],
            "held_out_class_wnids": ["n03126707"],
        }
    )


def test_a_file_of_settings(folder, model_dir, tmp_path):
    settings = {"model": str(model_dir), "dataset": str(folder), "output_dir": str(tmp_path / "out"), "use_cpu": True}
    settings |= {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, ROOT / "run_finetune.py", path], env=os.environ, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "robustvit.json").exists()


def test_a_share_of_the_fine_tuned_weights_is_saved_and_told(folder, tmp_path, monkeypatch):
    model = save_model(tmp_path / "classifier", ("ant", "bee", "cow"))
    weights = [load_file(model / "model.safetensors")]
    for share in (1, 0.25):
        out = tmp_path / f"out {share}"
        flags = ("--model", model, "--dataset", folder, "--output_dir", out, "--learning_rate", 1e-2)
        finetune(monkeypatch, *flags, "--finetuned_share", share)
        weights.append(load_file(out / "model.safetensors"))
    before, whole, mixed = weights
    assert not torch.allclose(before["classifier.weight"], whole["classifier.weight"])
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * whole[name])
    assert json.loads((out / "robustvit.json").read_text())["arguments"]["finetuned_share"] == 0.25
    assert "Weights: 25% fine-tuned and 75% the base model's" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "flags",
    [
        *(("--masks", "whole"), ("--masks", "other"), ("--swap_backgrounds",), ("--recombine_objects",)),
        *(("--masks", control, "--recombine_objects") for control in ("random", "other", "box")),
    ],
)
def test_a_control_trains_and_is_recorded(folder, model_dir, tmp_path, monkeypatch, flags):
    out = tmp_path / "out"
    arguments = ["--model", model_dir, "--dataset", folder, "--output_dir", out, "--num_train_epochs", 1, *flags]
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, arguments), "--use_cpu"])
    run_finetune.main()
    record = json.loads((out / "robustvit.json").read_text())
    assert record["mask_source"] == (flags[1] if flags[0] == "--masks" else "annotated")
    for flag in ("swap_backgrounds", "recombine_objects"):
        assert record[flag] == (f"--{flag}" in flags)
    if "whole" in flags:
        last = json.loads((out / "trainer_state.json").read_text())["log_history"][-1]
        assert last["eval_relevance_in_mask"] == pytest.approx(1) and last["eval_background_loss"] == 0


def test_class_folders_themselves_without_any_masks(folder, model_dir, tmp_path, monkeypatch):
    finetune(
        monkeypatch, "--model", model_dir, "--dataset", folder / "images", "--masks", "whole", "--output_dir", tmp_path
    )
    record = json.loads((tmp_path / "robustvit.json").read_text())
    assert record["mask_source"] == "whole" and record["training_images"][0].startswith("ant/")


@pytest.mark.parametrize(
    ("flags", "model", "attention"),
    [
        ((), {}, "lean"),
        (("--second_order",), {}, "eager"),
        (("--method", "rrr"), {}, "eager"),
        ((), {"attention_probs_dropout_prob": 0.1}, "eager"),
    ],
)
def test_attention_is_lean_where_it_can_be(flags, model, attention, folder, model_dir, tmp_path):
    tiny_model("vit", **model).save_pretrained(model_dir)
    arguments = ["--model", model_dir, "--dataset", folder, "--output_dir", tmp_path / "out", "--use_cpu", *flags]
    status, log = run_forked(run_finetune.main, [*arguments, "--num_train_epochs", 1], tmp_path / "log")
    assert status == 0, log
    assert f"is trained with {attention} attention" in log


def test_two_processes_of_accelerate_launch_equal_one(folder, model_dir, tmp_path):
    flags = ["--model", model_dir, "--dataset", folder, "--samples_per_class", 4, "--num_train_epochs", 2]
    flags += ["--optim", "sgd", "--learning_rate", 1e-2, "--use_cpu", "--load_best_model_at_end", "false"]
    flags += ["--per_device_train_batch_size"]
    run_forked(run_finetune.main, [*flags, 4, "--output_dir", tmp_path / "one"], tmp_path / "log")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", ROOT / "run_finetune.py"]
    done = subprocess.run(
        [sys.executable, *map(str, [*launch, *flags, 2, "--output_dir", tmp_path / "two"])],
        env=os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        assert relative_error(two[name], one[name]) < 1e-5, name
    assert json.loads((tmp_path / "two" / "robustvit.json").read_text())["num_processes"] == 2


def test_lora_saves_an_ordinary_model(folder, model_dir, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model", model_dir, "--dataset", folder, "--output_dir", out, "--use_cpu", "--lora_rank", 2]
    status, log = run_forked(run_finetune.main, [*arguments, "--num_train_epochs", 1], tmp_path / "log")
    assert status == 0, log
    answer = pipeline("image-classification", model=str(out))(str(folder / "images" / "ant" / "0.png"))
    assert {item["label"] for item in answer} == {"ant", "bee", "cow"}
    assert json.loads((out / "robustvit.json").read_text())["hyper_parameters"]["lora_rank"] == 2


def test_trackio_gets_every_term_offline(folder, model_dir, tmp_path):
    pytest.importorskip("trackio")
    flags = [
        "--model",
        model_dir,
        "--dataset",
        folder,
        "--output_dir",
        tmp_path / "out",
        "--max_steps",
        2,
        "--use_cpu",
    ]
    flags += ["--report_to", "trackio", "--project", "bugs", "--run_name", "first", "--logging_steps", 1]
    read = (
        "from trackio.sqlite_storage import SQLiteStorage; print(json.dumps(SQLiteStorage.get_logs('bugs', 'first')))"
    )
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "logs"), "HF_HUB_OFFLINE": "1"}
    for command in (["run_finetune.py", *map(str, flags)], ["-c", f"import json; {read}"]):
        command = [sys.executable, *command]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    logs = json.loads(done.stdout)
    assert {"train/background_loss", "eval/relevance_in_mask"} <= {name for log in logs for name in log}, logs


def test_libra_and_another_image_size_train_a_plain_model_and_are_recorded(folder, model_dir, tmp_path, monkeypatch):
    out, spied = tmp_path / "out", []

    def spy(model, pixel_values, target=None, method="gae", **others):
        spied.append((method, pixel_values.shape[-2:]))
        return explain(model, pixel_values, target, method, **others)

    for module in ("losses.robustvit", "evaluation.pictures"):
        monkeypatch.setattr(f"hf_robustvit.{module}.explain", spy)
    flags = ("--relevance_method", "libra", "--input_size", 48, "--num_train_epochs", 1, "--use_cpu")
    arguments = ("--model", model_dir, "--dataset", folder, "--output_dir", out, *flags)
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, arguments)])
    run_finetune.main()
    assert set(spied) == {("libra", (48, 48))}
    record = json.loads((out / "robustvit.json").read_text())
    assert record["hyper_parameters"]["relevance_method"] == "libra" and record["arguments"]["input_size"] == 48
    assert re.search(r"\| `relevance_method` +\| libra ", (out / "README.md").read_text())
    classify = pipeline("image-classification", model=str(out))
    assert classify.model.config.image_size == classify.image_processor.size.height == 48
    assert len(classify(str(folder / "images" / "ant" / "0.png"))) == 3


def break_mask_size(folder):
    Image.new("L", (20, 40), 255).save(folder / "masks" / "ant" / "0.png")
    return ()


def break_missing_mask(folder):
    (folder / "masks" / "ant" / "0.png").unlink()
    return ()


def break_empty_mask(folder):
    Image.new("L", (40, 40), 0).save(folder / "masks" / "ant" / "0.png")
    return ()


def break_polarity(folder):
    write_trimaps(folder)
    return ()


def write_trimaps(folder):
    """The masks as those of the Oxford pets: 1 is the object, 2 the background, 3 its first row."""
    for path in (folder / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            trimap = Image.eval(mask, lambda value: 1 if value else 2)
        trimap.paste(3, (0, 0, trimap.width, 1))
        trimap.save(path)


def move_masks(folder):
    (folder / "masks").rename(folder / "other")
    return ("--masks", "other")


def break_image(folder):
    (folder / "images" / "ant" / "0.png").write_bytes(b"no picture")
    return ()


@pytest.mark.parametrize(
    "mistake, sentence",
    [
        (break_mask_size, r"1 mask has another size than its image.*ant/0\.png is 20x40 pixels.*40x40"),
        (break_missing_mask, r"1 of 15 images have no mask.*ant/0\.png"),
        (break_empty_mask, r"1 mask has no foreground.*ant/0\.png"),
        (break_polarity, r"9 masks do not show what the object is.*the values 1, 2, 3, .*pass --mask_foreground"),
        (lambda folder: ("--dataset", "cutouts", "--mask_ignore", "3"), "--mask_ignore is for masks of your own"),
        (lambda folder: ("--mask_foreground", "cat"), "--mask_foreground: 'cat' is neither a grey value"),
        (break_image, r"1 image cannot be read.*ant/0\.png"),
        (lambda folder: ("--dataset", "cutout"), r"--dataset: there is no 'cutout'. Did you mean cutouts"),
        (lambda folder: ("--model", "google/vit-base-patch16-244"), r"Did you mean google/vit-base-patch16-224"),
        (lambda folder: ("--num_classes", "7"), r"--num_classes 7: the data set has images of only 3 classes"),
        (lambda folder: ("--num_classes", "0"), r"--num_classes 0"),
        (lambda folder: ("--metric_for_best_model", "f1"), r"--metric_for_best_model: there is no 'f1'"),
        (lambda folder: ("--samples_per_class", "9"), r"--samples_per_class 9: .*'ant' has 5"),
        (lambda folder: ("--dataset", "imagenet-s"), r"--data_dir"),
        (lambda folder: ("--masks", "whole", "--swap_backgrounds"), r"--masks whole leaves none: leave one of them"),
        (lambda folder: ("--attention_only", "--lora_rank", "2"), r"--attention_only does not: leave one of the two"),
        (lambda folder: ("--swap_backgrounds", "--recombine_objects"), r"leave --swap_backgrounds out"),
        (lambda folder: ("--relevance_method", "rollout"), r"is for evaluation only: train with gae or libra"),
        (
            lambda folder: ("--relevance_method", "libra", "--method", "rrr"),
            r"--method rrr looks at no map",
        ),
        (lambda folder: ("--input_size", "50"), r"--input_size is 50: give a multiple of the model's patch size, 8x8"),
        (
            lambda folder: ("--image_size", "48"),
            r"--image_size is not used .* model's input is --input_size",
        ),
        (lambda folder: ("--finetuned_share", "1.5"), r"--finetuned_share is 1\.5: give a share above 0 and up to 1"),
        (
            lambda folder: ("--finetuned_share", "0.5"),
            r"--finetuned_share mixes in .*head knows other classes.* show: pass --finetuned_share 1\.",
        ),
        (
            lambda folder: ("--saliency_model", "n.onnx"),
            r"--saliency_model is not used by --masks annotated: leave it",
        ),
        (
            lambda folder: ("--masks", "tokencut", "--detector", "X"),
            r"--detector is not used by --masks tokencut: leave it out, or pass --masks text",
        ),
        (
            lambda folder: ("--dataset", folder / "images", "--masks", "box"),
            r"--masks box alters the photos' own masks",
        ),
        (move_masks, r"--masks other .* has no folder 'masks': put the masks into .*data/masks/<class>"),
    ],
)
def test_each_mistake_is_one_sentence(folder, model_dir, tmp_path, mistake, sentence, monkeypatch, capsys):
    flags = mistake(folder)
    arguments = ["--model", model_dir, "--dataset", folder, "--output_dir", tmp_path / "out", *flags, "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        run_finetune.main()
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(sentence, errors[0]), errors[0]


def test_a_cache_that_cannot_be_written_to_is_one_sentence(folder, model_dir, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "file" / "cache"))
    done = run("--model", model_dir, "--dataset", folder, "--output_dir", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written to (Not a directory): set HF_DATASETS_CACHE to a folder that can" in done.stderr


def test_trimaps_train_by_their_flags_and_the_record_tells_them(folder, model_dir, tmp_path, monkeypatch):
    common = ("--model", model_dir, "--dataset", folder, "--max_steps", 8)
    finetune(monkeypatch, *common, "--output_dir", tmp_path / "white")
    write_trimaps(folder)
    flags = ("--mask_foreground", 1, "--mask_ignore", 3)
    finetune(monkeypatch, *common, "--output_dir", tmp_path / "trimap", *flags)
    white, trimap = (json.loads((tmp_path / name / "robustvit.json").read_text()) for name in ("white", "trimap"))
    assert trimap["mask_foreground"] == ["1"] and trimap["mask_ignore"] == ["3"]
    assert "mask_foreground" not in white and "mask_orientation" not in trimap
    first, second = (record["validation"] for record in (white, trimap))
    # The centre crop of the validation leaves the first row out; some crops of the training do not.
    assert first["before"]["eval_loss"] == second["before"]["eval_loss"]
    assert first["after"]["eval_loss"] != second["after"]["eval_loss"]
    finetune(monkeypatch, *common, "--output_dir", tmp_path / "whole", "--masks", "whole")


def test_an_earlier_run_is_gone_on_with_or_left_alone(folder, model_dir, tmp_path):
    out = tmp_path / "out"
    flags = ["--model", model_dir, "--dataset", folder, "--output_dir", out, "--num_train_epochs"]
    assert run(*flags, 1).returncode == 0
    again = run(*flags, 2)
    assert again.returncode == 2 and "--resume_from_checkpoint true" in again.stderr
    resumed = run(*flags, 2, "--resume_from_checkpoint", "true")
    assert resumed.returncode == 0, resumed.stderr
    epochs = [log["epoch"] for log in json.loads((out / "trainer_state.json").read_text())["log_history"]]
    assert max(epochs) == 2
