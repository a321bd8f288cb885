"""Image-mask pairs: reading and checking them, joint transforms, controls, batches, and the choice of images."""

from hf_robustvit.data.background import SwapBackgrounds
from hf_robustvit.data.controls import MASK_CONTROLS, control_masks
from hf_robustvit.data.labels import (
    class_named,
    class_wnids,
    classes_by_name,
    distinct_class_names,
    model_classes,
    relabel,
    text_classes,
)
from hf_robustvit.data.masks import NO_FLAGS, MaskReading, foreground_mask
from hf_robustvit.data.pairs import PairError, check_pairs, open_picture, read_pair, read_row
from hf_robustvit.data.recombination import RecombineObjects
from hf_robustvit.data.selection import TRAINING_SETS, Selection, choose_training_images
from hf_robustvit.data.transforms import (
    AugmentedPairs,
    EvalTransform,
    TrainTransform,
    collate_pairs,
    with_pair_transform,
)
from hf_robustvit.flags.masks import MADE_MASKS
