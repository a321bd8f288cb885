"""Loading a classifier, and where its patches sit."""

from hf_robustvit.models.loading import attentions_of, is_head, load_classifier, patch_layout
