import json

import torch
from planted_benchmarks import vit

from hf_robustvit.evaluation.checkpoint import Checkpoint


def test_training_classes_are_read_from_the_folder(tmp_path):
    model, processor = vit(4)
    assert Checkpoint.of(str(tmp_path), None, model, processor).training_classes is None
    (tmp_path / "robustvit.json").write_text(json.dumps({"method": "robustvit", "training_classes": ["c3", "c1"]}))
    checkpoint = Checkpoint.of(str(tmp_path), None, model, processor)
    assert [checkpoint.was_trained_on(index) for index in range(4)] == [False, True, False, True]


def test_a_model_that_is_not_on_disk_has_no_record():
    assert Checkpoint.of("somebody/not-here", "main", *vit(4)).training_classes is None
    assert Checkpoint.of("timm/vit", None, *vit(4)).training_classes is None
    assert Checkpoint.of("cutouts-vit", None, *vit(4)).training_classes is None


def test_the_revision_is_the_commit_where_there_is_one():
    model, processor = vit(4)
    assert Checkpoint.of("a/b", "main", model, processor).revision == "main"
    model.config._commit_hash = "abc"
    assert Checkpoint.of("a/b", "main", model, processor).revision == "abc"


def test_the_fingerprint_changes_with_any_weight():
    first, same, other = (Checkpoint.of("m", None, *vit(4, seed=seed)) for seed in (0, 0, 1))
    assert first.weights == same.weights != other.weights
    changed, processor = vit(4)
    with torch.no_grad():
        changed.classifier.bias[2] += 1e-6
    assert Checkpoint.of("m", None, changed, processor).weights != first.weights
