import json
from pathlib import Path

import torch
from huggingface_hub import constants
from planted_benchmarks import vit

from hf_robustvit.evaluation.checkpoint import Checkpoint


def test_training_classes_are_read_from_the_folder(tmp_path):
    model, processor = vit(4)
    assert Checkpoint.of(str(tmp_path), None, model, processor).training_classes is None
    (tmp_path / "robustvit.json").write_text(json.dumps({"method": "robustvit", "training_classes": ["c3", "c1"]}))
    checkpoint = Checkpoint.of(str(tmp_path), None, model, processor)
    assert [checkpoint.was_trained_on(index) for index in range(4)] == [False, True, False, True]


def test_indices_tell_classes_of_one_name_apart(tmp_path, caplog):
    model, processor = vit(3)
    model.config.id2label = {0: "crane", 1: "crane", 2: "ant"}
    record = tmp_path / "robustvit.json"
    record.write_text(json.dumps({"training_classes": ["crane (0)"], "training_class_indices": [0]}))
    checkpoint = Checkpoint.of(str(tmp_path), None, model, processor)
    assert [checkpoint.was_trained_on(index) for index in range(3)] == [True, False, False]
    assert not caplog.text
    record.write_text(json.dumps({"training_classes": ["crane"]}))  # of an earlier version
    checkpoint = Checkpoint.of(str(tmp_path), None, model, processor)
    assert [checkpoint.was_trained_on(index) for index in range(3)] == [True, True, False]
    assert "several of its classes are called 'crane'" in caplog.text


def test_a_model_from_the_hub_has_a_commit_and_perhaps_a_record():
    repository = Path(constants.HF_HUB_CACHE) / "models--somebody--model"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    (snapshot / "config.json").write_text("{}")
    checkpoint = Checkpoint.of("somebody/model", None, *vit(4))
    assert (checkpoint.revision, checkpoint.training_classes) == ("0123abc", None)
    (snapshot / "robustvit.json").write_text(json.dumps({"training_classes": ["c2"]}))
    checkpoint = Checkpoint.of("somebody/model", "0123abc", *vit(4))
    assert (checkpoint.revision, checkpoint.training_classes) == ("0123abc", {"c2"})


def test_an_embedded_model_has_neither():
    checkpoint = Checkpoint.of("cutouts-vit", None, *vit(4))
    assert (checkpoint.revision, checkpoint.training_classes) == (None, None)


def test_the_fingerprint_changes_with_any_weight():
    first, same, other = (Checkpoint.of("m", None, *vit(4, seed=seed)) for seed in (0, 0, 1))
    assert first.weights == same.weights != other.weights
    changed, processor = vit(4)
    with torch.no_grad():
        changed.classifier.bias[2] += 1e-6
    assert Checkpoint.of("m", None, changed, processor).weights != first.weights
