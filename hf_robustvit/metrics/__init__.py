"""Metrics as `evaluate.Metric` subclasses: they are instantiated directly and need no access to the Hub."""

from hf_robustvit.metrics.relevance_segmentation import (
    RelevanceSegmentation,
    segmentation_counts,
    segmentation_scores,
)
from hf_robustvit.metrics.top_k_accuracy import TopKAccuracy
