import numpy as np
import pytest

from hf_robustvit.metrics import TopKAccuracy


PREDICTIONS = [[3, 1, 2, 0, 4], [0, 1, 2, 3, 5], [4, 3, 2, 1, 0], [5, 4, 3, 2, 1]]
REFERENCES = [3, 3, 5, 4]


def test_counts_by_hand():
    assert TopKAccuracy().compute(predictions=PREDICTIONS, references=REFERENCES) == {"top1": 0.25, "top5": 0.75}


def test_k_chooses_the_numbers_of_guesses():
    result = TopKAccuracy().compute(predictions=PREDICTIONS, references=REFERENCES, k=(2, 4))
    assert result == {"top2": 0.5, "top4": 0.75}


def test_batches_add_up_and_a_second_data_set_starts_afresh():
    metric = TopKAccuracy(keep_in_memory=True)
    metric.add_batch(predictions=PREDICTIONS[:1], references=REFERENCES[:1])
    metric.add_batch(predictions=np.array(PREDICTIONS[1:]), references=np.array(REFERENCES[1:]))
    assert metric.compute() == {"top1": 0.25, "top5": 0.75}
    assert metric.compute(predictions=PREDICTIONS[:1], references=REFERENCES[:1]) == {"top1": 1.0, "top5": 1.0}


def test_a_model_with_three_classes_has_every_class_in_its_top_5():
    result = TopKAccuracy().compute(predictions=[[2, 0, 1], [1, 2, 0]], references=[1, 1])
    assert result == {"top1": 0.5, "top5": 1.0}


def test_equals_an_argsort_of_the_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 12)), rng.integers(12, size=200)
    order = np.argsort(-logits, axis=1)
    expected = np.mean([label in row[:5] for label, row in zip(labels, order, strict=True)])
    result = TopKAccuracy().compute(predictions=order[:, :5], references=labels)
    assert result["top5"] == pytest.approx(expected)
