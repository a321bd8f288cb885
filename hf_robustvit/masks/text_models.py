"""Models that find what a text names, and models that outline what boxes show; all native in transformers.

Images are read with Pillow on every machine, as for every other model here: torchvision resizes slightly differently.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForMaskGeneration,
    AutoModelForZeroShotObjectDetection,
    AutoTokenizer,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    GroundingDinoProcessor,
    Owlv2Processor,
    OwlViTProcessor,
    Sam2Processor,
    SamImageProcessorPil,
    SamProcessor,
    ViTImageProcessorPil,
)

from hf_robustvit.errors import UserError
from hf_robustvit.flags.masks import Dtype, TextOptions
from hf_robustvit.models.files import commit_of, model_source, read_model_config, reading_model
from hf_robustvit.models.weights import check_whole, load_model


# What --detector and --segmenter take, by the model_type of their config.json.
DETECTORS = {
    "grounding-dino": (AutoModelForZeroShotObjectDetection, GroundingDinoProcessor),
    "mm-grounding-dino": (AutoModelForZeroShotObjectDetection, GroundingDinoProcessor),
    "owlv2": (AutoModelForZeroShotObjectDetection, Owlv2Processor),
    "owlvit": (AutoModelForZeroShotObjectDetection, OwlViTProcessor),
    "clipseg": (CLIPSegForImageSegmentation, CLIPSegProcessor),
}
OUTLINING = ("clipseg",)  # detectors that need no segmenter
SEGMENTERS = {
    "sam": (AutoModelForMaskGeneration, SamProcessor),
    "sam2": (AutoModelForMaskGeneration, Sam2Processor),
    "sam2_video": (AutoModelForMaskGeneration, Sam2Processor),
}
# Suggested where there is no such model.
KNOWN = {
    "detector": (
        TextOptions.detector,
        "google/owlv2-base-patch16-ensemble",
        "CIDAS/clipseg-rd64-refined",
    ),
    "segmenter": (TextOptions.segmenter, "facebook/sam-vit-base"),
}
MOST_BOXES = 20  # of one text in one image; bounds the memory that outlining them takes


class Found(NamedTuple):
    """What a text names in an image, the most certain first.

    Attributes:
        boxes: (n, 4) left, top, right, bottom in pixels.
        scores: (n,) confidences in [0, 1].
        mask: (height, width) bool, of a model that outlines what it finds; else None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None = None


class _Model:
    """A model, and the processor that makes its inputs.

    Args:
        flag: Where its name comes from.
        name: Hub id or folder.
        revision: Branch, tag or commit on the Hub.
        kinds: The classes of model and processor by model_type.
        device: Where it runs.
        dtype: What it computes in; its inputs and outputs are float32.

    Raises:
        UserError: It cannot be loaded, is of no such type, or lacks weights.
    """

    def __init__(
        self, flag: str, name: str, revision: str | None, kinds: dict, device: torch.device | str, dtype: Dtype
    ):
        self.flag, self.name, self.device, self.dtype = flag, name, torch.device(device), getattr(torch, dtype)
        try:
            self.kind = read_model_config(name, revision, KNOWN[flag]).get("model_type")
            if self.kind not in kinds:
                raise UserError(
                    f"--model: {name!r} has the model_type {self.kind!r} in its config.json, and this flag takes "
                    f"{', '.join(kinds)}."
                )
            model_class, processor_class = kinds[self.kind]
            with reading_model(name):
                access = {"revision": revision, "trust_remote_code": False}
                self.processor = _processor(processor_class, model_source(name), access)
            self.model, report = load_model(model_class, name, dtype=torch.float32, **access)
        except UserError as error:
            raise UserError(str(error).replace("--model:", f"--{flag}:", 1)) from error
        check_whole(flag, name, report)
        self.model.eval().to(self.device)
        self.revision = commit_of(name, revision)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)


class Detector(_Model):
    """Finds what texts name in images: Grounding DINO, OWL, or CLIPSeg, which also outlines it."""

    def __init__(self, name: str, revision: str | None, device: torch.device | str, dtype: Dtype):
        super().__init__("detector", name, revision, DETECTORS, device, dtype)
        self.outlines = self.kind in OUTLINING

    def check(self, text: str) -> None:
        """Check that the model can read a text.

        Raises:
            UserError: Its tokenizer knows none of it, or it is too long.
        """
        tokenizer = self.processor.tokenizer
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        positions = self.model.config.text_config.max_position_embeddings
        longest = min(tokenizer.model_max_length, positions) - tokenizer.num_special_tokens_to_add()
        if set(tokens) <= set(tokenizer.all_special_ids):
            raise UserError(
                f"--detector: the tokenizer of {self.name!r} knows nothing of {text!r}: give that class another name "
                "in the file of --prompts."
            )
        if len(tokens) > longest:
            raise UserError(
                f"--detector: {text!r} has {len(tokens)} tokens, and {self.name!r} reads at most {longest}: give that "
                "class a shorter name in the file of --prompts."
            )

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str], threshold: float) -> list[Found]:
        """What each text names in its image.

        Args:
            images: RGB.
            texts: One for each image.
            threshold: Smallest confidence of a box; of a pixel for a model that outlines.
        """
        groups = defaultdict(list)
        for index, (image, text) in enumerate(zip(images, texts, strict=True)):
            # Grounding DINO pads what is smaller than its neighbours, which changes what it finds there.
            groups[(image.size, text) if "dino" in self.kind else None].append(index)
        found = {}
        for indices in groups.values():
            together = self._find([images[index] for index in indices], [texts[index] for index in indices], threshold)
            found |= zip(indices, together, strict=True)
        return [found[index] for index in range(len(images))]

    def _find(self, images: list[Image.Image], texts: list[str], threshold: float) -> list[Found]:
        sizes = [image.size[::-1] for image in images]
        padding = {} if self.kind.startswith("owl") else {"padding": True}  # OWL's texts always have one length
        prompts = texts if self.outlines else [[text] for text in texts]
        inputs = self.processor(images=images, text=prompts, return_tensors="pt", **padding).to(self.device)
        with torch.inference_mode(), self._autocast():
            output = self.model(**inputs)
        output.logits = output.logits.float()
        if self.outlines:
            logits = [
                F.interpolate(one[None, None], size, mode="bilinear")[0, 0]
                for one, size in zip(output.logits, sizes, strict=True)
            ]
            return [_outlined(one.sigmoid().cpu().numpy(), threshold) for one in logits]
        output.pred_boxes = output.pred_boxes.float()
        found = self.processor.post_process_grounded_object_detection(output, threshold=threshold, target_sizes=sizes)
        return [
            _ranked(one["boxes"].cpu().numpy(), one["scores"].cpu().numpy(), image.size)
            for one, image in zip(found, images, strict=True)
        ]


class Segmenter(_Model):
    """Outlines what boxes show: SAM or SAM 2."""

    def __init__(self, name: str, revision: str | None, device: torch.device | str, dtype: Dtype):
        super().__init__("segmenter", name, revision, SEGMENTERS, device, dtype)

    def __call__(self, images: Sequence[Image.Image], boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One mask for each box, (n, height, width) bool by image.

        Args:
            images: RGB; they go through the image encoder together.
            boxes: (n, 4) left, top, right, bottom in pixels by image.
        """
        inputs = [
            self.processor(images=image, input_boxes=[corners.tolist()], return_tensors="pt")
            for image, corners in zip(images, boxes, strict=True)
        ]
        pixels = torch.cat([one["pixel_values"] for one in inputs]).to(self.device)
        with torch.inference_mode(), self._autocast():
            embeddings = self.model.get_image_embeddings(pixels)  # of SAM 2 a list, by resolution
        masks = []
        for index, one in enumerate(inputs):
            here = slice(index, index + 1)
            with torch.inference_mode():  # in float32: half precision would move boxes by pixels
                output = self.model(
                    image_embeddings=[level[here].float() for level in embeddings]
                    if isinstance(embeddings, list)
                    else embeddings[here].float(),
                    input_boxes=one["input_boxes"].float().to(self.device),
                    multimask_output=False,
                )
            sizes = [one[name] for name in ("original_sizes", "reshaped_input_sizes") if name in one]
            (outlined,) = self.processor.post_process_masks(output.pred_masks, *sizes)
            masks.append(outlined[:, 0].cpu().numpy())
        return masks


class _Sam2ImageProcessorPil(ViTImageProcessorPil):
    """Reads an image for SAM 2, for which transformers has only a processor that needs torchvision."""

    def __call__(self, images: Image.Image, segmentation_maps: None = None, **kwargs: Any) -> Any:
        inputs = super().__call__(images, **kwargs)
        inputs["original_sizes"] = torch.tensor([images.size[::-1]])
        return inputs

    def post_process_masks(self, masks: torch.Tensor, sizes: torch.Tensor, *_: Any) -> list[torch.Tensor]:
        return [F.interpolate(one, size.tolist(), mode="bilinear") > 0 for one, size in zip(masks, sizes, strict=True)]


def _processor(kind: type, source: str, access: dict[str, Any]) -> Any:
    if kind is SamProcessor:
        return kind(SamImageProcessorPil.from_pretrained(source, **access))
    if kind is Sam2Processor:
        return kind(_Sam2ImageProcessorPil.from_pretrained(source, **access))
    images = AutoImageProcessor.from_pretrained(source, backend="pil", **access)
    return kind(images, AutoTokenizer.from_pretrained(source, **access))


def _ranked(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Found:
    order = np.argsort(-scores, kind="stable")[:MOST_BOXES]
    return Found(boxes[order].clip(0, [*size, *size]), scores[order])


def _outlined(shares: np.ndarray, threshold: float) -> Found:
    mask = shares > threshold
    if not mask.any():
        return Found(np.zeros((0, 4)), np.zeros(0), mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return Found(np.array([box], dtype=float), shares.max()[None], mask)
