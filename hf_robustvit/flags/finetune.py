"""What is fine-tuned, on which images, by which method."""

import os
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from hf_robustvit.flags import RelevanceMethod
from hf_robustvit.flags.masks import MADE_MASKS
from hf_robustvit.flags.text_head import TextHeadArguments


METHODS = ("robustvit", "gradmask", "rrr", "finetune")  # of `losses.LOSSES`


@dataclass
class FinetuneArguments(TextHeadArguments):
    """The model, and the images it is fine-tuned on."""

    model: str = HfArg(help="Hub id, local folder, timm/<name> or cutouts-vit.")
    revision: str | None = HfArg(default=None, help="Branch, tag or commit of the model on the Hub.")
    dataset: str = HfArg(
        default="imagenet-s",
        help="imagenet-s, cutouts, a folder with images by class (and masks/<class>/*.png), or a data set in Parquet: "
        "a folder or a repository on the Hub.",
    )
    streaming: bool = HfArg(
        default=False,
        help="Of a data set in Parquet, read the chosen images alone, into memory, and write nothing to the cache.",
    )
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Where the data set is; the environment variable HF_ROBUSTVIT_DATA if left out.",
    )
    images_dir: str | None = HfArg(default=None, help="The images, if not beside the masks: ImageNet's train folder.")
    masks: str = HfArg(
        default="annotated",
        help=f"annotated, {', '.join(MADE_MASKS)}, or a folder of masks. Controls: random (blobs of the mask's area), "
        "whole (all is foreground), other (another image's mask), box (the mask's bounding box).",
    )
    swap_backgrounds: bool = HfArg(default=False, help="Show each image on another one's background half of the time.")
    recombine_objects: bool = HfArg(
        default=False,
        help="Show three of four images on another one's background, half of these moved, turned and scaled.",
    )
    finetuned_share: float = HfArg(
        default=1.0,
        help="Share of the fine-tuned weights in the model that is saved, the rest being the original's (WiSE-FT).",
    )
    ignore_unlabelled: bool = HfArg(
        default=False, help="Leave pixels unlabelled in ImageNet-S out of both mask losses."
    )
    num_classes: int | None = HfArg(
        default=None, help="Number of training classes. Default: 500 for imagenet-s, else all."
    )
    samples_per_class: int = HfArg(default=3, help="Number of training images of each class.")
    class_seed: int | None = HfArg(default=None, help="Draws classes and images; left out, the first ones are taken.")
    input_size: int | None = HfArg(
        default=None,
        help="Height and width of the model's input in pixels, with interpolated position embeddings. Default: the "
        "checkpoint's.",
    )
    skip_unreadable: bool = HfArg(default=False, help="Leave out broken images and masks instead of stopping.")
    dry_run: bool = HfArg(
        default=False,
        help="Check images and masks, take two steps, and say what the run would take: steps, time, memory, disk.",
    )


@dataclass
class MethodSettings:
    """What `RobustViTConfig` adds to transformers' `TrainingArguments`, and where it has other defaults."""

    _argument_group_name = "method and training"

    method: Literal[METHODS] = HfArg(
        default="robustvit", help="Loss to fine-tune with: robustvit (the paper's), gradmask, rrr or finetune."
    )
    lambda_relevance: float | None = HfArg(default=None, help="Weight of the relevance loss (Eq. 5). Paper: 0.8.")
    lambda_classification: float | None = HfArg(
        default=None, help="Weight of the classification loss (Eq. 5). Paper: 0.2."
    )
    lambda_background: float | None = HfArg(default=None, help="Weight of the background loss (Eq. 3). Paper: 2.")
    lambda_foreground: float | None = HfArg(default=None, help="Weight of the foreground loss (Eq. 3). Paper: 0.3.")
    temperature: float | None = HfArg(
        default=None, help="Divides the logits in the classification loss. DeiT-B 0.65, DeiT-S 0.55, else 1."
    )
    classification_target: Literal["predicted", "label"] | None = HfArg(
        default=None, help="Class the classification loss asks for: predicted (Eq. 4), or label (if the head is new)."
    )
    relevance_target: Literal["predicted", "label"] = HfArg(
        default="label", help="Class whose relevance map is moved: label or predicted."
    )
    second_order: bool | None = HfArg(
        default=None,
        help="Differentiate the gradients inside the mask term too. Off for robustvit, on for the baselines.",
        metadata={"nargs": "?", "const": True},
    )
    start_layer: int = HfArg(default=0, help="First layer that counts in the relevance map.")
    relevance_method: RelevanceMethod = HfArg(
        default="gae", help="Rule that makes the relevance map: gae (the paper's) or libra (LibraGrad's gradients)."
    )
    penalty: Literal["mean_square", "norm"] = HfArg(
        default="mean_square", help="GradMask's penalty: mean_square (as released) or norm (Eq. 9)."
    )
    trainable_layers: int | None = HfArg(
        default=None, help="How many last layers to train, with norm and head; all by default."
    )
    attention_only: bool = HfArg(
        default=False, help="Train the layers' attention alone, and the head only where it is new."
    )
    lora_rank: int | None = HfArg(default=None, help="Rank of the LoRA matrices to train in place of the weights.")
    lora_alpha: float = HfArg(default=16.0, help="LoRA's matrices count lora_alpha / lora_rank.")
    lr_decay: float = HfArg(default=0.85, help="Factor on the learning rate every lr_decay_epochs (step_decay).")
    lr_decay_epochs: int = HfArg(default=2, help="Number of epochs between two decays.")

    learning_rate: float | None = HfArg(default=None, help="Initial learning rate. Paper: by model (Tab. 5).")
    num_train_epochs: float = HfArg(default=50.0, help="Number of epochs.")
    weight_decay: float = HfArg(default=1e-4, help="AdamW's weight decay, on all parameters.")
    max_grad_norm: float = HfArg(default=0.0, help="Gradient norm to clip to; 0 does not clip.")
    lr_scheduler_type: str = HfArg(default="step_decay", help="Schedule: step_decay (the paper's), or transformers'.")
    eval_strategy: str = HfArg(default="epoch", help="When to evaluate: epoch, steps or no.")
    save_strategy: str = HfArg(default="epoch", help="When to save: epoch, steps, best or no.")
    logging_strategy: str = HfArg(default="epoch", help="When to log: epoch, steps or no.")
    save_total_limit: int | None = HfArg(default=2, help="Number of checkpoints to keep.")
    load_best_model_at_end: bool = HfArg(default=True, help="End with the checkpoint of the lowest validation loss.")
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = HfArg(
        default="end", help="When to push to the Hub: end, when the model is finished."
    )
    remove_unused_columns: bool = HfArg(default=False, help="Must stay off: the masks are not a model argument.")
    label_names: list[str] | None = HfArg(default_factory=lambda: ["labels"], help="Names of the labels in a batch.")
