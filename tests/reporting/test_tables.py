from dataclasses import replace

import pandas as pd

from hf_robustvit.evaluation.comparison import Difference
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.reporting.tables import (
    class_changes_table,
    comparison_table,
    intervals_note,
    markdown_table,
    results_table,
    statistics_note,
    validation_table,
)


def result(protocol=None, **figures) -> BenchmarkResult:
    return BenchmarkResult("set", "model", None, 100, protocol=protocol or {}, weights="", data="", **figures)


def test_text_stands_left_and_numbers_right():
    assert markdown_table(["name", "value"], [["a|b", 1.5], ["c", None], ["d", 10]]).split("\n") == [
        "| name | value |",
        "| ---- | ----: |",
        "| a\\|b |  1.50 |",
        "| c    |     – |",
        "| d    |    10 |",
    ]


def test_a_table_without_rows_keeps_its_header():
    assert markdown_table(["a", "bcd"], []).startswith("|   a | bcd |\n| --: | --: |")


def test_results_leave_out_columns_nobody_fills():
    table = results_table([result(top1=12.5, top5=50.0, top1_ci95=[6.7, 20.9]), result(top1=1.0, top1_any=2.0)])
    assert table.split("\n")[0].split() == "| dataset | images | top1 | 95 % interval | top5 | top1_any |".split()
    assert "[6.70, 20.90]" in table and "–" in table


def test_a_comparison_shows_sign_interval_and_star():
    item = Difference("set", "top1", "all", 100, 50.0, 60.0, 10.0, (4.0, 16.0), 2e-3, 4e-6, True)
    row = [cell.strip() for cell in comparison_table([item]).split("\n")[2].strip("|").split("|")]
    assert row == ["set", "top1", "all", "100", "50.00", "60.00", "+10.00", "[4.00, 16.00]", "0.002", "<0.0001", "*"]


def test_notes_name_the_intervals_and_tests_that_were_used():
    by_image = Difference("photos", "top1", "all", 100, 50.0, 60.0, 10.0, (4.0, 16.0), 0.1, interval="score")
    by_object = replace(by_image, dataset="pasted", interval="group bootstrap", test="sign-flip")
    assert "McNemar" in statistics_note([by_image]) and "object" not in statistics_note([by_image])
    assert "McNemar" not in statistics_note([by_object, by_object])
    both = statistics_note([by_image, by_object])
    assert "McNemar" in both and "pasted: images show the same objects several times" in both
    assert "sign-flip permutation test over objects" in both and "photos:" not in both
    alone = result(), result(group="object", interval="group bootstrap")
    assert "Wilson's" in intervals_note(alone[:1]) and "set:" not in intervals_note(alone[:1])
    assert intervals_note(alone[1:]).endswith("intervals are from resampling objects (group bootstrap).")
    assert intervals_note([result({"relevance_method": "libra"})]).endswith(" Maps are made by the rule libra.")


def test_class_changes():
    changes = pd.DataFrame({"class_name": ["cat"], "n": [4], "before": [25.0], "after": [0.0], "difference": [-25.0]})
    assert class_changes_table(changes).split("\n")[2].split() == "| cat | 4 | 25.00 | 0.00 | -25.00 |".split()


def test_the_validation_table_shows_what_was_measured():
    before = {"eval_loss": 1.0, "eval_accuracy": 0.25, "eval_runtime": 3.0}
    table = validation_table(before, before | {"eval_loss": 0.12345})
    assert table.splitlines()[2:] == ["| loss       | 1.0000 | 0.1235 |", "| accuracy   | 0.2500 | 0.2500 |"]
