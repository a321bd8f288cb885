import json
from dataclasses import asdict

import pandas as pd
import pytest

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.results import (
    BenchmarkResult,
    finished_result,
    read_predictions,
    read_result,
    write_result,
)
from hf_robustvit.files import replacing


RESULT = BenchmarkResult("set", "m", None, 2, {"crop_border": 0}, "w", "d", top1=50.0, top1_ci95=[1.0, 99.0])
FRAME = pd.DataFrame({"image_id": ["a", "b"], "top5_indices": [[1, 2], [2, 1]]})


def test_what_is_written_is_read_back(tmp_path):
    write_result(tmp_path / "new", RESULT, FRAME)
    assert read_result(tmp_path / "new", "set") == RESULT
    assert read_predictions(tmp_path / "new", "set")["image_id"].tolist() == ["a", "b"]
    assert read_result(tmp_path / "new", "other") is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["set.json", "set.predictions.parquet"]


def test_predictions_without_their_json_are_unfinished(tmp_path):
    write_result(tmp_path, RESULT, FRAME)
    (tmp_path / "set.json").unlink()
    assert read_result(tmp_path, "set") is None


def test_predictions_that_are_no_longer_those_of_the_result_are_told(tmp_path):
    write_result(tmp_path, RESULT, FRAME)
    path = tmp_path / "set.predictions.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="set.predictions.parquet has changed since set.json was written"):
        read_result(tmp_path, "set")
    assert finished_result(tmp_path, "set") is None


def test_a_write_that_fails_leaves_neither_half_a_file_nor_an_old_result_beside_new_predictions(tmp_path):
    write_result(tmp_path, RESULT, FRAME)
    cannot_be_stored = FRAME.assign(broken=[object(), object()])
    with pytest.raises(Exception, match="object"):
        write_result(tmp_path, RESULT, cannot_be_stored)
    assert [path.name for path in tmp_path.iterdir()] == ["set.predictions.parquet"]
    assert read_predictions(tmp_path, "set").columns.tolist() == FRAME.columns.tolist()


def test_replacing_keeps_the_old_file_when_interrupted(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "[" * 5000),
        *map(
            json.dumps,
            (
                {"dataset": "set"},
                *(asdict(RESULT) | wrong for wrong in ({"top1": "50"}, {"per_class": {"a": 1}}, {"dataset": ""})),
                *(asdict(RESULT) | wrong for wrong in ({"top1_ci95": [50.0]}, {"per_class": {"a": {"top1": 1.0}}})),
                asdict(RESULT) | {"top1": 10**400},
            ),
        ),
    ],
)
def test_a_foreign_json_is_named(tmp_path, text):
    write_result(tmp_path, RESULT, FRAME)
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(UserError, match=r"set\.json is not a result of this version; remove it"):
        read_result(tmp_path, "set")
