"""The model card: hostile names come out as text, worse results show like better ones, nothing is lost or guessed."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from photo_folder import finetune, save_model, save_photos

from hf_robustvit.data import MASK_CONTROLS
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.comparison import Difference
from hf_robustvit.evaluation.per_class import Confusion
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.reporting.card import add_results, as_text, base_licence


HOSTILE = ("<img src=x onerror=alert(1)>", "a|b `c` *d*\ne", "---\n[x](javascript:alert(1)) {{ 7 * 7 }}: &amp; #1")


def result(dataset="pets", weights="w1", top1=40.0, **figures):
    figures = {"top5": 90.0, "top1_subset": 55.0, "top5_subset": 95.0, "top1_ci95": [30.0, 50.0]} | figures
    protocol = {"preprocessing": "checkpoint", "label_space": "named", "crop_border": 0, "precision": "fp32"}
    return BenchmarkResult(dataset, "you/bugs", None, 100, protocol, weights, "d", top1=top1, **figures)


def difference(dataset="pets", before=50.0, after=40.0, p=0.03, figure="top1"):
    return Difference(dataset, figure, "all", 100, before, after, after - before, (after - before - 2, -0.5), p)


def test_hostile_class_names_are_text(tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos", HOSTILE), save_model(tmp_path / "model")
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    names = "&lt;img src=x onerror=alert(1)&gt;", r"a&#124;b \`c\` \*d\* e"
    assert all(name in card for name in names) and "<img" not in card
    assert r"--- \[x\](javascript:alert(1)) \{\{ 7 \* 7 \}\}: &amp;amp; \#1" in card and "49" not in card
    assert ModelCard(card).data.pipeline_tag == "image-classification"
    assert set(json.loads((tmp_path / "out" / "robustvit.json").read_text())["training_classes"]) == set(HOSTILE)


def test_hostile_file_names_and_folder_names_are_text(tmp_path, monkeypatch):
    photos = save_photos(tmp_path / "<b>photos|`1`")
    for kind in ("images", "masks"):
        (photos / kind / "ant" / "0.png").rename(photos / kind / "ant" / "--push <script>$(touch x);.png")
    model, out = save_model(tmp_path / "model: [x]"), tmp_path / "<i>out: '\"#"
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", out)
    card = ModelCard.load(out / "README.md")
    assert card.data.model_name == "<i>out: '\"#" and card.data.eval_results[0].dataset_name == "<b>photos|`1`"
    text = card.text.replace("model=" + json.dumps(out.name), "")  # in a block of code
    assert not re.search("<(?!!-- )", text)  # our own comments
    assert "from &lt;b&gt;photos&#124;\\`1\\`" in text and "# &lt;i&gt;out: '\"\\#" in text
    record = json.loads((out / "robustvit.json").read_text())
    assert "ant/--push <script>$(touch x);.png" in record["training_images"] and not (tmp_path / "x").exists()


@pytest.mark.parametrize("value", [*HOSTILE, "plain", 3e-6])
def test_text_is_one_line_without_markup(value):
    text = as_text(value)
    assert "\n" not in text and not re.search(r"[<>|]|(?<!\\)[`*\[\]{}]", text)


def test_a_worse_result_is_shown_with_its_interval(tmp_path):
    add_results(tmp_path, "you/bugs", [result()], [difference()], "acme/tiny-vit")
    text = (tmp_path / "README.md").read_text()
    assert "Before is acme/tiny-vit, after is this model" in text
    row = next(line for line in text.splitlines() if line.startswith("| pets") and "top1 " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["pets", "top1", "all", "100", "50.00", "40.00", "-10.00", "[-12.00, -0.50]", "0.03", "0.03", "*"]
    alone = next(line for line in text.splitlines() if line.startswith("| pets") and "[30.00, 50.00]" in line)
    assert all(figure in alone for figure in ("40.00", "90.00", "55.00", "95.00"))
    values = {entry.metric_name[:5]: entry.metric_value for entry in ModelCard(text).data.eval_results}
    assert values == {"Top-1": 55.0, "Top-5": 95.0}  # of the subset, which came last
    assert len(ModelCard(text).data.eval_results) == 4


def test_what_was_there_stays_unless_it_is_of_other_weights(tmp_path):
    add_results(tmp_path, "you/bugs", [result("pets")], [difference("pets", p=0.03)], "base")
    add_results(tmp_path, "you/bugs", [result("birds")], [difference("birds", p=0.04)], "base")
    stored = json.loads((tmp_path / "results" / "comparison.json").read_text())["differences"]
    assert {item["dataset"]: item["p_holm"] for item in stored} == {"pets": 0.06, "birds": 0.06}  # over both
    text = (tmp_path / "README.md").read_text()
    assert text.count("### On benchmarks") == 1 and len(ModelCard(text).data.eval_results) == 8
    assert text.count("| pets ") == text.count("| birds ") == 2

    add_results(tmp_path, "you/bugs", [result("birds", weights="w2", top1=70.0)], [], None)
    text = (tmp_path / "README.md").read_text()
    assert "| pets " not in text and text.count("| birds ") == 1 and "70.00" in text


def test_the_confusions_the_lowest_classes_and_the_calibration_are_told(tmp_path):
    per_class = {name: {"top1": 50.0, "top5": 60.0, "n": n} for name, n in ((HOSTILE[0], 10), ("rare", 9))}
    figures = {"ece": 5.0, "ece_ci95": [4.0, 6.5], "per_class": per_class}
    confusion = Confusion(["n02172182", HOSTILE[0]], [[1, 2, 3], [4, 5, 6]], [[1, 3, 2], [5, 5, 5]])
    add_results(tmp_path, "you/bugs", [result(**figures)], [difference(figure="ece")], "base", {"pets": confusion})
    add_results(tmp_path, "you/bugs", [result("birds")], [difference("birds")], "base")
    text = (tmp_path / "README.md").read_text()
    assert "5.00 [4.00, 6.50]" in text and "| pets    | ece " in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| 1"]
    assert rows == [["1 dung beetle", "1", "2 → 3", "3 → 2"]]
    escaped = "&lt;img src=x onerror=alert(1)&gt;"
    assert f"| 2 {escaped} |" in text and f"| pets    | {escaped} |  10 | 50.00 |" in text and "rare" not in text
    assert not re.search("<(?!!-- )", text)
    add_results(tmp_path, "you/bugs", [result("birds")], [difference("birds")], "other")
    assert "dung beetle" not in (tmp_path / "README.md").read_text(), "that was against another baseline"


def test_what_the_hub_knows_has_a_file_for_its_leaderboard(tmp_path):
    hub_ids = {"pets": "you/pets", "birds": "you/birds"}
    add_results(tmp_path, "you/bugs", [result("pets"), result("mine", top1=41.234)], [], None, hub_ids=hub_ids)
    folder = tmp_path / ".eval_results"
    assert [path.name for path in folder.iterdir()] == ["pets.yaml"]
    entries = parse_eval_result_entries(yaml.safe_load((folder / "pets.yaml").read_text()))
    found = {(entry.dataset_id, entry.task_id): entry.value for entry in entries}
    values = {"top1": 40.0, "top5": 90.0, "top1_subset": 55.0, "top5_subset": 95.0}
    assert found == {("you/pets", f"pets-{name}"): value for name, value in values.items()}
    assert entries[0].notes == "Top-1 accuracy over all classes of the model (%)"
    add_results(tmp_path, "you/bugs", [result("birds")], [], None, hub_ids=hub_ids)
    assert {path.name for path in folder.iterdir()} == {"pets.yaml", "birds.yaml"}
    add_results(tmp_path, "you/bugs", [result("birds", weights="w2")], [], None, hub_ids=hub_ids)
    assert [path.name for path in folder.iterdir()] == ["birds.yaml"], "those of other weights are gone"


def test_another_baseline_replaces_the_differences(tmp_path):
    add_results(tmp_path, "you/bugs", [result("pets")], [difference("pets")], "base")
    add_results(tmp_path, "you/bugs", [result("birds")], [difference("birds")], "other")
    stored = json.loads((tmp_path / "results" / "comparison.json").read_text())
    assert stored["baseline"] == "other" and [item["dataset"] for item in stored["differences"]] == ["birds"]
    assert json.loads((tmp_path / "results" / "pets.json").read_text()) == asdict(result("pets"))


def test_a_card_of_somebody_else_keeps_its_words_and_metadata(tmp_path):
    card = "---\nlicense: mit\nlanguage: en\n---\n\n# Somebody's model\n\nTheir words.\n"
    (tmp_path / "README.md").write_text(card)
    add_results(tmp_path, "them/model", [result()], [], None)
    text = (tmp_path / "README.md").read_text()
    assert "# Somebody's model\n\nTheir words.\n\n<!-- hf_robustvit: benchmarks -->\n### On benchmarks" in text
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.language, metadata.model_name) == ("mit", "en", "model")
    (tmp_path / "README.md").write_text("---\n- a list\n---\n")
    with pytest.raises(UserError, match="The metadata at the top of .*README.md cannot be read"):
        add_results(tmp_path, "them/model", [result()], [], None)


def test_hostile_data_set_names_are_text_in_the_results_too(tmp_path):
    name = "<b>|`x`"
    add_results(tmp_path, "you/bugs", [result(name)], [difference(name)], "base|line")
    text = ModelCard.load(tmp_path / "README.md").text
    assert text.count(r"&lt;b&gt;&#124;\`x\`") == 2 and "<b>" not in text and "base&#124;line" in text
    assert ModelCard.load(tmp_path / "README.md").data.eval_results[0].dataset_name == name


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: odd\nlicense_link: https://a.b\n---\n", None),
        ("---\ntags: [x]\n---\n", {}),
        ("---\nlicense: [mit, other]\n---\n", {}),
        ("---\na: !!python/object/apply:os.system ['touch hacked']\n---\n", {}),
        ("no metadata", {}),
        (None, {}),
    ],
)
def test_a_licence_is_inherited_or_unknown_never_guessed(tmp_path, monkeypatch, card, licence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    if card is not None:
        (tmp_path / "model" / "README.md").write_text(card)
    odd = {"license": "other", "license_name": "odd", "license_link": "https://a.b"}
    assert base_licence(str(tmp_path / "model")) == (odd if licence is None else licence)
    assert base_licence("acme/not-in-the-cache") == {} and base_licence("cutouts-vit") == {"license": "mit"}
    assert not (tmp_path / "hacked").exists()


def test_the_card_says_when_the_licence_is_unknown(tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos"), save_model(tmp_path / "model")
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", tmp_path / "out", "--num_classes", 2)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license is None and card.data.base_model is None  # a folder's name is none on the Hub
    assert "Unknown: no card of the base model, model, names one." in card.text
    assert str(tmp_path) not in str(card)


def test_validation_figures_are_those_of_the_record_with_exact_intervals(tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos", count=4), save_model(tmp_path / "model", ("ant", "bee", "cow"))
    out = tmp_path / "out"
    flags = ("--samples_per_class", 1, "--method", "finetune", "--load_best_model_at_end", "false")
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", out, *flags)
    record = json.loads((out / "robustvit.json").read_text())
    count = len(record["validation_images"])
    card = (out / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| accuracy"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    for when, value, bounds in zip(("before", "after"), cells[2::2], cells[3::2], strict=True):
        accuracy = record["validation"][when]["eval_accuracy"]
        assert float(value) == pytest.approx(100 * accuracy, rel=1e-3)
        low, high = json.loads(bounds)
        if accuracy == 0:  # the closed form where nothing is right
            assert (low, high) == (0, pytest.approx(100 * (1 - 0.025 ** (1 / count)), abs=0.01))
        assert low <= 100 * accuracy <= high and np.isfinite([low, high]).all()
    assert int(cells[1]) == count and "relevance in mask" not in card  # no maps in plain fine-tuning
    assert "was kept" not in card and "by plain cross-entropy" in card


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ((), "and the checkpoint with their lowest loss was kept"),
        (("--metric_for_best_model", "accuracy"), "and the checkpoint with their highest accuracy was kept"),
        (
            ("--metric_for_best_model", "eval_relevance_in_mask", "--greater_is_better", "false"),
            "and the checkpoint with their lowest relevance in mask was kept",
        ),
        (("--load_best_model_at_end", "false"), None),
        (("--eval_delay", 9), None),
    ],
)
def test_the_card_says_by_what_the_checkpoint_was_chosen(flags, note, tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos"), save_model(tmp_path / "model")
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", tmp_path / "out", *flags)
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert ("the checkpoint with their" in card) == (note is not None)
    assert note is None or note in card


@pytest.mark.parametrize("control", MASK_CONTROLS)
def test_a_controls_card_says_so(control, tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos"), save_model(tmp_path / "model")
    finetune(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", tmp_path / "out", "--masks", control)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- Masks: {control} (a control: not the images' own masks)" in card and "the folder" not in card
