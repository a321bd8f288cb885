"""From a classifier's attentions and their gradients to a relevance map over the image."""

from hf_robustvit.relevance.explanation import METHODS, TRAINING_METHODS, Explanation, check_training_method, explain
from hf_robustvit.relevance.gae import cls_relevance
from hf_robustvit.relevance.maps import min_max_normalize, upscale
