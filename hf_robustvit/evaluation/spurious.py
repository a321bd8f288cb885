"""Whether a model sees a class in photographs that show only what often goes with it (Neuhaus et al., ICCV 2023)."""

import numpy as np
import pandas as pd
import torch

from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.imagenet_classes import WNIDS


def applies(run: BenchmarkRun) -> bool:
    """Whether the images are known not to show a class."""
    return "absent_class" in run.data.rows.column_names


def measure(run: BenchmarkRun) -> pd.DataFrame:
    """What the model gives the class that an image does not show.

    Returns:
        One row for each readable image: `image_id`; `class_name`, the absent class; `class_probability`, its
        probability; `spurious_top1` (1.0 or 0.0), whether it is the model's first guess over all its classes.

    Raises:
        UserError: The model's classes are not ImageNet's, or an image cannot be read and
            `run.options.skip_unreadable` is off.
    """
    names = run.data.rows.features["absent_class"].names
    indices = {wnid: (index,) for index, wnid in enumerate(WNIDS)}
    space = match_classes(run.data.name, names, indices, run.checkpoint.model.config, can_be_renamed=False)
    labels = torch.tensor(run.data.rows["absent_class"][:])
    absent = torch.tensor(space.first_indices)[labels].to(run.accelerator.device)  # (images,)

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = run.checkpoint.model(pixel_values=batch["pixel_values"]).logits.float()
        own = absent[batch["index"]]
        return {
            "class_probability": logits.softmax(dim=1).gather(1, own[:, None])[:, 0],
            "spurious_top1": (logits.argmax(dim=1) == own).float(),
        }

    columns = run.over(run.images(), step)
    class_names = np.asarray(names, dtype=object)[labels.numpy()[columns.pop("index")]]
    return pd.DataFrame({"image_id": columns.pop("image_id"), "class_name": class_names} | columns)
