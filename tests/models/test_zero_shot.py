"""CLIP-type models as classifiers: transformers' own scores, a frozen head, a plain CLIPModel after fine-tuning."""

import json

import datasets
import pytest
import torch
from photo_folder import finetune, save_photos
from PIL import Image
from safetensors.torch import load_file
from tiny_clip import MODELS, save_clip
from tiny_models import tiny_model
from tiny_tokenizer import tiny_tokenizer
from transformers import AutoTokenizer, ViTImageProcessorPil, pipeline

import run_eval
from dataset_scripts import load_training_pairs
from hf_robustvit.commands.app import DemoArguments, load_classifiers
from hf_robustvit.commands.evaluate import EvaluationArguments, load_checkpoints, name_classes
from hf_robustvit.commands.explain import explain_image
from hf_robustvit.commands.finetune import FinetuneArguments, fit
from hf_robustvit.data import EvalTransform
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import NAMES, WNIDS
from hf_robustvit.models.loading import load_classifier
from hf_robustvit.relevance import explain


NAMED = ["ant", "bee", "great cow"]


def pixels(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path):
    return save_clip(tmp_path / "clip")


@pytest.fixture
def photos(tmp_path):
    return save_photos(tmp_path / "data")


def pipeline_scores(folder, image, names, template) -> list[float]:
    """What transformers' own pipeline gives each name, adding up to 1."""
    answer = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")(
        image, candidate_labels=names, hypothesis_template=template
    )
    scores = {item["label"]: item["score"] for item in answer}
    scores = torch.tensor([scores[name] for name in names], dtype=torch.float64)
    if json.loads((folder / "config.json").read_text())["model_type"] == "siglip":  # it takes each class for itself
        scores = scores.logit().exp() / scores.logit().exp().sum()
    return scores.tolist()


def own_scores(model, image_processor, image) -> list[float]:
    with torch.no_grad():
        logits = model(image_processor(image, return_tensors="pt")["pixel_values"]).logits
    return logits.softmax(dim=-1)[0].tolist()


@pytest.mark.parametrize("template", [None, "this is a {}"])
@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("family", MODELS)
def test_the_scores_are_those_of_transformers(tmp_path, family, attention, template):
    folder = save_clip(tmp_path / family, family)
    model, image_processor = load_classifier(folder, attention=attention, class_names=NAMED, prompt_template=template)
    template = template or "a photo of a {}."
    assert model.config.id2label == dict(enumerate(NAMED)) and model.config.prompt_template == template
    image = Image.effect_noise((40, 50), 200).convert("RGB")
    found = own_scores(model, image_processor, image)
    assert found == pytest.approx(pipeline_scores(folder, image, NAMED, template), abs=1e-5)
    assert max(found) - min(found) > 0.005

    padding = {"padding": "max_length", "max_length": 64} if family == "siglip" else {"padding": True}
    text = tiny_tokenizer()([template.format(name) for name in NAMED], **padding, return_tensors="pt")
    with torch.no_grad():
        wanted = MODELS[family].from_pretrained(folder)(pixel_values=pixels(), **text).logits_per_image
        torch.testing.assert_close(explain(model, pixels()).logits, wanted, rtol=1e-5, atol=1e-5)


def test_a_name_with_underscores_is_read_with_spaces(folder):
    logits = [load_classifier(folder, class_names=[name])[0](pixels()).logits for name in ("great_cow", "great cow")]
    assert torch.equal(*logits)


def test_many_prompts_pass_in_parts_and_long_ones_are_cut(folder):
    names = [f"{index} " + "long " * 20 * (index == 7) for index in range(300)]
    model, _ = load_classifier(folder, class_names=names)
    one, _ = load_classifier(folder, class_names=names[200:201])
    assert model.text_features.shape == (300, 16)
    torch.testing.assert_close(model(pixels()).logits[:, 200:201], one(pixels()).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "head"),
    [("clip", "visual_projection.weight"), ("siglip", "vision_model.head.attention.in_proj_weight")],
)
def test_fine_tuning_leaves_a_plain_model_whose_text_tower_is_the_originals(
    photos, tmp_path, monkeypatch, family, head
):
    folder, out = save_clip(tmp_path / family, family), tmp_path / "out"
    finetune(monkeypatch, "--model", folder, "--dataset", photos, "--output_dir", out, "--learning_rate", 1e-3)
    settings = json.loads((out / "config.json").read_text())
    assert settings["architectures"] == [MODELS[family].__name__]
    before, after = (load_file(path / "model.safetensors") for path in (folder, out))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(("vision_model.", "visual_projection.")) for name in moved)
    assert head in moved and "vision_model.encoder.layers.0.self_attn.q_proj.weight" in moved

    model, image_processor = load_classifier(out)  # without class names
    assert list(model.config.id2label.values()) == ["ant", "bee", "cow"]
    image = Image.open(photos / "images" / "ant" / "0.png")
    wanted = pipeline_scores(out, image, ["ant", "bee", "cow"], "a photo of a {}.")
    assert own_scores(model, image_processor, image) == pytest.approx(wanted, abs=1e-5)

    record = json.loads((out / "robustvit.json").read_text())
    assert record["prompt_template"] == "a photo of a {}."
    original, _ = load_classifier(folder, class_names=["ant", "bee", "cow"])
    pairs = load_training_pairs(str(photos))
    in_validation = [row for row in pairs if row["image_id"] in record["validation_images"]]
    columns = {name: [row[name] for row in in_validation] for name in pairs.column_names}
    with torch.no_grad():
        guesses = original(torch.stack(EvalTransform(image_processor)(columns)["pixel_values"])).logits.argmax(dim=1)
    hits = guesses == torch.tensor(columns["label"])
    assert record["validation"]["before"]["eval_accuracy"] == pytest.approx(hits.float().mean().item())

    card = (out / "README.md").read_text()
    assert "pipeline_tag: zero-shot-image-classification" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace('model="out"', f"model={str(out)!r}").replace("photo.jpg", str(image.filename))
    code = code.replace("\nclassify(", "\nanswer = classify(")
    scope = {}
    exec(code, scope)
    scores = zip(("ant", "bee", "cow"), wanted, strict=True)
    ranked = sorted(scores, key=lambda pair: pair[1], reverse=True)
    assert [item["label"] for item in scope["answer"]] == [name for name, _ in ranked]
    if family == "clip":
        found = [item["score"] for item in scope["answer"]]
        assert found == pytest.approx([score for _, score in ranked], abs=1e-5)


def test_a_run_is_resumed_with_its_classes(folder, photos, tmp_path, monkeypatch):
    flags = ("--model", folder, "--dataset", photos, "--save_steps", 1, "--save_strategy", "steps")
    flags += ("--load_best_model_at_end", "false", "--learning_rate", 1e-3)
    finetune(monkeypatch, *flags, "--output_dir", tmp_path / "whole")
    finetune(monkeypatch, *flags, "--output_dir", tmp_path / "half", "--max_steps", 1)
    finetune(monkeypatch, *flags, "--output_dir", tmp_path / "half", "--resume_from_checkpoint", "true")
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    for name in whole:
        assert torch.equal(half[name], whole[name]), name


def test_the_classes_of_a_data_set_are_the_head_and_no_new_one(folder, photos, tmp_path):
    pairs = load_training_pairs(str(photos))
    model, _, found, new_head = fit(FinetuneArguments(model=str(folder)), pairs, needs_eager=False)
    assert not new_head and found.features["label"].names == list(model.config.id2label.values())
    names = tmp_path / "names.txt"
    names.write_text("elk\ncow\n\nbee\nant\n")
    arguments = FinetuneArguments(model=str(folder), class_names=str(names), prompt_template="{}")
    model, _, found, new_head = fit(arguments, pairs, needs_eager=False)
    assert not new_head and list(model.config.id2label.values()) == ["elk", "cow", "bee", "ant"]
    assert found["label"] == [{0: 3, 1: 2, 2: 1}[label] for label in pairs["label"]]
    names.write_text("elk\nant\n")
    with pytest.raises(UserError, match=r"names.txt lacks 2 classes of the images, the first is 'bee': add them"):
        fit(arguments, pairs, needs_eager=False)


def test_wnids_are_imagenets_classes_by_name(folder, tmp_path):
    pairs = load_training_pairs(str(save_photos(tmp_path / "wnids", classes=(WNIDS[7], WNIDS[3]))))
    model, _, found, new_head = fit(FinetuneArguments(model=str(folder)), pairs, needs_eager=False)
    assert not new_head and tuple(model.config.id2label.values()) == NAMES
    assert set(found["label"]) == {3, 7}


def test_an_evaluation_takes_the_classes_of_its_data(folder, photos, tmp_path):
    arguments = EvaluationArguments(
        model=str(folder), dataset=[str(photos)], output_dir=str(tmp_path / "results"), num_workers=0
    )
    run_eval.main(arguments)
    result = json.loads((tmp_path / "results" / "data.json").read_text())
    model, image_processor = load_classifier(folder, class_names=["ant", "bee", "cow"])
    hits = []
    for label, name in enumerate(("ant", "bee", "cow")):
        for path in sorted((photos / "images" / name).iterdir()):
            scores = own_scores(model, image_processor, Image.open(path))
            hits.append(max(range(3), key=scores.__getitem__) == label)
    assert result["top1"] == pytest.approx(100 * sum(hits) / len(hits))


def rows_of(names, imagenet_indices=None) -> BenchmarkRows:
    rows = datasets.Dataset.from_dict({"label": [0]}).cast_column("label", datasets.ClassLabel(names=names))
    return BenchmarkRows("set", rows, imagenet_indices)


def test_imagenets_sets_take_imagenets_names_and_a_baseline_those_of_the_model(folder, tmp_path):
    arguments = EvaluationArguments(model=str(folder), dataset=["imagenet-a"], output_dir=str(tmp_path / "results"))
    checkpoints = load_checkpoints(arguments)
    assert checkpoints[0].knows_imagenet
    name_classes(checkpoints, [rows_of(["n01440764"], {"n01440764": (0,)})])
    assert tuple(checkpoints[0].model.config.id2label.values()) == NAMES
    before = checkpoints[0].weights
    finetuned, image_processor = load_classifier(folder, class_names=NAMED, prompt_template="{}!")
    finetuned.save_pretrained(tmp_path / "out")
    image_processor.save_pretrained(tmp_path / "out")
    arguments.model, arguments.baseline = str(tmp_path / "out"), str(folder)
    checkpoints = load_checkpoints(arguments)
    name_classes(checkpoints, [rows_of(["ant", "bee"])])
    for checkpoint in checkpoints:
        assert list(checkpoint.model.config.id2label.values()) == NAMED
        assert checkpoint.model.config.prompt_template == "{}!"
    assert checkpoints[0].weights == checkpoints[1].weights != before, "other classes are another model"
    shown = load_classifiers(DemoArguments(model=str(tmp_path / "out"), baseline=str(folder)))
    assert [each.class_names for each in shown] == [tuple(NAMED)] * 2


def test_explaining_an_image_needs_and_takes_names(folder, photos, tmp_path):
    image, names = str(photos / "images" / "ant" / "0.png"), tmp_path / "names.txt"
    with pytest.raises(UserError, match="classifies by class names, and none are given: .*--class_names"):
        explain_image(str(folder), image, None, tmp_path / "map.png")
    names.write_text("ant\nbee\n")
    table = explain_image(str(folder), image, "bee", tmp_path / "map.png", class_names=str(names))
    assert "| ant" in table and "| bee" in table and (tmp_path / "map.png").stat().st_size


def test_names_for_a_model_with_a_head_are_refused(tmp_path):
    tiny_model("vit").save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    for setting in ({"class_names": NAMED}, {"prompt_template": "{}"}):
        with pytest.raises(UserError, match=f"--{next(iter(setting))}: .* has a classification head of its own"):
            load_classifier(tmp_path, **setting)
    arguments = EvaluationArguments(
        model=str(tmp_path), dataset=["cutouts-val"], output_dir=str(tmp_path / "out"), prompt_template="{}"
    )
    with pytest.raises(UserError, match="--prompt_template is for CLIP-type models"):
        load_checkpoints(arguments)


@pytest.mark.parametrize("template", ["a photo", "{} {}", "{name}", "{", "{}{0}"])
def test_a_template_has_one_place_for_the_name(folder, template):
    with pytest.raises(UserError, match="--prompt_template is .*: put {} where the class name belongs, once"):
        load_classifier(folder, class_names=NAMED, prompt_template=template)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read"), ("\n \n", "is empty"), ("ant\nbee\nant", "has the name 'ant' twice")],
)
def test_files_of_names_that_cannot_be_used(folder, photos, tmp_path, content, sentence):
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_text(content)
    arguments = FinetuneArguments(model=str(folder), class_names=str(names))
    with pytest.raises(UserError, match=f"--class_names: {names} {sentence}"):
        fit(arguments, load_training_pairs(str(photos)), needs_eager=False)


def test_a_checkpoint_of_open_clip_alone_is_refused_by_name(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UserError, match="is a checkpoint of open_clip .* give one that transformers reads"):
        load_classifier(tmp_path, class_names=NAMED)


def test_a_tokenizer_whose_package_is_missing_is_named(tmp_path, monkeypatch):
    def missing(*arguments, **settings):
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library but it was not found. See\nthe page")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    sentence = "needs a package that is missing here: SiglipTokenizer requires the SentencePiece library .* found\\.$"
    with pytest.raises(UserError, match=sentence):
        load_classifier(save_clip(tmp_path / "siglip", "siglip"), class_names=NAMED)
