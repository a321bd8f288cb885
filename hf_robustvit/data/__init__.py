"""Image-mask pairs: reading and checking them, joint transforms, batches, and the choice of classes and samples."""

from hf_robustvit.data.collator import collate_pairs
from hf_robustvit.data.labels import model_classes, relabel
from hf_robustvit.data.pairs import PairError, check_pairs, foreground_mask, read_pair
from hf_robustvit.data.selection import Selection, choose_training_images
from hf_robustvit.data.transforms import AugmentedPairs, EvalTransform, TrainTransform, with_pair_transform


__all__ = [
    "AugmentedPairs",
    "EvalTransform",
    "PairError",
    "Selection",
    "TrainTransform",
    "check_pairs",
    "choose_training_images",
    "collate_pairs",
    "foreground_mask",
    "model_classes",
    "read_pair",
    "relabel",
    "with_pair_transform",
]
