"""Whether a model sees a class in photographs that show only what often goes with it (Neuhaus et al., ICCV 2023)."""

import numpy as np
import torch

from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.one_pass import PLAIN, Batch, Columns, Measurement
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.imagenet_classes import WNIDS


def applies(run: BenchmarkRun) -> bool:
    """Whether the images are known not to show a class."""
    return "absent_class" in run.data.rows.column_names


def measurement(run: BenchmarkRun) -> Measurement:
    """What the model gives the class that an image does not show.

    Columns: `class_name`, the absent class; `class_probability`, its probability; `spurious_top1` (1.0 or 0.0),
    whether it is the model's first guess over all its classes.

    Raises:
        UserError: The model's classes are not ImageNet's.
    """
    names = run.data.rows.features["absent_class"].names
    indices = {wnid: (index,) for index, wnid in enumerate(WNIDS)}
    space = match_classes(run.data.name, names, indices, run.checkpoint.model.config, can_be_renamed=False)
    labels = torch.tensor(run.data.rows["absent_class"][:])
    absent = torch.tensor(space.first_indices)[labels].to(run.accelerator.device)  # (images,)

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        own = absent[batch.index]
        return {
            "class_probability": batch.logits.softmax(dim=1).gather(1, own[:, None])[:, 0],
            "spurious_top1": (batch.logits.argmax(dim=1) == own).float(),
        }

    def table(columns: Columns, index: np.ndarray) -> Columns:
        return {"class_name": np.asarray(names, dtype=object)[labels.numpy()[index]]} | columns

    return Measurement({PLAIN: run.images()}, step, table)
