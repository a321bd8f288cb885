"""TrainingRecord: the one schema of robustvit.json."""

import json

import pytest

from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError
from hf_robustvit.record import TrainingRecord


def test_a_record_is_written_as_it_was_read_with_the_keys_of_other_versions(tmp_path):
    content = {"method": "rrr", "hyper_parameters": {"seed": 1}, "arguments": {}, "base_revision": None}
    content |= {"class_seed": 3, "training_classes": ["café"], "mask_ignore": ["255"], "of_tomorrow": [None]}
    path = tmp_path / "robustvit.json"
    path.write_text(json.dumps(content))
    record = TrainingRecord.read(path)
    assert (record.training_classes, record.base_model, record.others) == (["café"], None, {"of_tomorrow": [None]})
    record.write(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "robustvit.json").read_text(encoding="utf-8")) == content
    assert TrainingRecord.read(tmp_path / "copy") == record


def test_the_flags_of_masks_are_in_the_schema():
    assert TrainingRecord.of(MaskReading(["1"], ["2"], "stored").settings()).others == {}


def test_a_record_of_an_earlier_version_lacks_what_it_did_not_tell(tmp_path):
    (tmp_path / "robustvit.json").write_text('{"training_classes": ["c1"]}')
    record = TrainingRecord.read(tmp_path)
    assert (record.training_classes, record.training_class_indices, record.versions) == (["c1"], None, None)


@pytest.mark.parametrize(
    "text",
    ["{", "5", "[" * 5000, '{"training_classes": 5}', '{"validation": {"before": null}}', '{"num_processes": "2"}'],
)
def test_what_is_no_record_is_told(text, tmp_path):
    (tmp_path / "robustvit.json").write_text(text)
    with pytest.raises(UserError, match=r"robustvit.json is not the record of a fine-tuning run \(.*\): remove it"):
        TrainingRecord.read(tmp_path)
