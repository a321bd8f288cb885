"""How masks are made, judged and read."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transformers.hf_argparser import HfArg

from hf_robustvit.errors import UserError


if TYPE_CHECKING:
    from hf_robustvit.masks.quality import MaskScores


# The values of `--masks` for which masks are made of the images themselves; `masks.SOURCES` has what makes them.
MADE_MASKS = ("tokencut", "text", "saliency")
SHOWN_VALUES = 8
OTHER_CLASS = "another class"
Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass
class MaskArguments:
    """The images, and where their masks go."""

    images: str = HfArg(help="Folder with images/<class>/*, <class>/*, or images without classes.")
    output_dir: str = HfArg(help="Where masks go; those that are there are kept.")
    source: str | None = HfArg(
        default=None,
        help=f"{', '.join(MADE_MASKS)} or boxes. Default: what --boxes or --saliency_model is for, else tokencut.",
    )
    annotated: str | None = HfArg(
        default=None, help="Folder of annotated masks <class>/<stem>.png, to report the IoU."
    )
    agree_with: str | None = HfArg(
        default=None, help="Folder of an earlier run with another source: masks must agree with it (--min_shared)."
    )
    boxes: str | None = HfArg(default=None, help="COCO .json, Pascal VOC .xml, or a folder of these (--source boxes).")
    batch_size: int = HfArg(default=8, help="Images that go through the network together.")
    dry_run: bool = HfArg(default=False, help="Say what would be downloaded and made, and make nothing.")


@dataclass(frozen=True)
class TokenCutOptions:
    """What decides how a mask comes out."""

    _argument_group_name = "masks from TokenCut"

    backbone: str = HfArg(
        default="facebook/dino-vitb16",
        help="Self-supervised ViT whose features are cut: Hub id or folder (ViT, DeiT, MSN, DINOv2).",
    )
    backbone_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the backbone on the Hub.")
    image_size: int = HfArg(
        default=480, help="Longer side in pixels at which masks are computed; bounds time and memory."
    )
    tau: float = HfArg(default=0.2, help="Cosine similarity above which two patches are alike.")
    sigma_spatial: float = HfArg(default=16.0, help="Bilateral solver: cell width in pixels.")
    sigma_luma: float = HfArg(default=16.0, help="Bilateral solver: cell width in grey levels.")
    sigma_chroma: float = HfArg(default=8.0, help="Bilateral solver: cell width in levels of U and V.")

    def __post_init__(self):
        for name in ("sigma_spatial", "sigma_luma", "sigma_chroma"):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name} must be positive, found {getattr(self, name)}.")
        if not -1 <= self.tau < 1:
            raise UserError(f"--tau is a cosine and must be in [-1, 1), found {self.tau}.")


@dataclass(frozen=True)
class TextOptions:
    """What decides what is found, and how it is outlined."""

    _argument_group_name = "masks from class names (text)"

    detector: str = HfArg(
        default="IDEA-Research/grounding-dino-tiny",
        help="Finds what the class's name says (for text): Hub id or folder of Grounding DINO or OWL; or of CLIPSeg, "
        "which needs no segmenter.",
    )
    detector_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the detector on the Hub.")
    segmenter: str = HfArg(
        default="facebook/sam2.1-hiera-small", help="Outlines what is found: Hub id or folder of SAM 2 or SAM."
    )
    segmenter_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the segmenter on the Hub.")
    prompts: str | None = HfArg(
        default=None, help="YAML file with lines `class folder: what to look for in its images`."
    )
    box_threshold: float = HfArg(
        default=0.35, help="Confidence that a box needs (CLIPSeg: a pixel). OWL's are lower: try 0.15."
    )
    null_prompt: str = HfArg(
        default=OTHER_CLASS,
        help="What must not be found in the same place: a name; by default another class's; '' looks for nothing.",
    )
    dtype: Dtype = HfArg(default="float32", help="What the networks compute in: float32, float16 or bfloat16.")

    def __post_init__(self):
        if not 0 < self.box_threshold < 1:
            raise UserError(f"--box_threshold is a confidence between 0 and 1, found {self.box_threshold}.")


@dataclass(frozen=True)
class SaliencyOptions:
    """The network, and what its input needs."""

    _argument_group_name = "masks from a saliency network"

    saliency_model: str | None = HfArg(
        default=None, help="ONNX file of a network that finds the salient object (for saliency)."
    )
    saliency_mean: list[float] = HfArg(
        default_factory=lambda: [128.0],
        help="What is subtracted from pixels of 0 to 255: one number, or one a channel. Default: ISNet's, 128.",
    )
    saliency_std: list[float] = HfArg(
        default_factory=lambda: [256.0],
        help="What pixels are divided by then: one number, or one a channel. Default: ISNet's, 256.",
    )

    def __post_init__(self):
        for name in ("saliency_mean", "saliency_std"):
            values = getattr(self, name)
            if len(values) not in (1, 3):
                raise UserError(f"--{name} takes one number or three (red, green, blue), found {len(values)}.")
        if min(self.saliency_std) <= 0:
            raise UserError(f"--saliency_std must be positive, found {min(self.saliency_std)}.")

    def check(self) -> None:
        """Check that a network is named.

        Raises:
            UserError: None is, or its file is not there.
        """
        if self.saliency_model is None:
            raise UserError("Masks from saliency need --saliency_model: name the ONNX file of a network.")
        if not Path(self.saliency_model).is_file():
            raise UserError(f"--saliency_model: there is no file {self.saliency_model}.")


@dataclass(frozen=True)
class QualityGate:
    """The thresholds that a mask's scores must meet."""

    _argument_group_name = "which of the masks that are made are accepted"

    min_area: float = HfArg(default=0.02, help="Smallest mask, as a share of the image.")
    max_area: float = HfArg(default=0.5, help="Largest mask, as a share of the image.")
    max_components: int = HfArg(default=30, help="Most pieces of the object (TokenCut's on the patch grid).")
    min_agreement: float = HfArg(default=0.5, help="Smallest IoU between the mask before and after its refinement.")
    min_eigen_gap: float = HfArg(default=0.02, help="Smallest distance of the cut's eigenvalue to the next one.")
    max_unsure: float = HfArg(default=0.1, help="Largest share of pixels that a saliency network is unsure of.")

    min_score: float = HfArg(
        default=0.0, help="Smallest confidence of the best box of a class's name, where --box_threshold is lower."
    )
    max_null: float = HfArg(
        default=0.8, help="Largest confidence of the null prompt in the same place, as a share of the class's own."
    )
    min_shared: float = HfArg(default=0.5, help="Smallest IoU with the mask of another source (--agree_with).")

    def __post_init__(self):
        for threshold in fields(self):
            value = getattr(self, threshold.name)
            if not value >= 0:  # nor nan, which would switch its test off
                raise UserError(f"--{threshold.name} must be a number that is not negative, found {value}.")
        for name in ("min_agreement", "min_score", "min_shared"):
            if getattr(self, name) > 1:
                raise UserError(
                    f"--{name} must not be above 1, found {getattr(self, name)}: no mask could be accepted."
                )
        if not self.min_area <= self.max_area <= 1:
            raise UserError(
                f"--min_area and --max_area must be shares of the image with min_area <= max_area <= 1, found "
                f"{self.min_area} and {self.max_area}."
            )

    def reason(self, scores: "MaskScores") -> str | None:
        """Why a mask is rejected, or None if it is accepted."""
        if scores.area < self.min_area:
            return f"mask covers {scores.area:.1%} of the image, less than {self.min_area:.1%}"
        if scores.area > self.max_area:
            return f"mask covers {scores.area:.1%} of the image, more than {self.max_area:.1%}"
        if scores.components > self.max_components:
            return f"foreground falls into {scores.components} pieces, more than {self.max_components}"
        if scores.agreement is not None and scores.agreement < self.min_agreement:
            return f"refined and unrefined mask have IoU {scores.agreement:.2f}, less than {self.min_agreement:.2f}"
        if scores.eigen_gap is not None and scores.eigen_gap < self.min_eigen_gap:
            return f"eigen-gap of the cut is {scores.eigen_gap:.4f}, less than {self.min_eigen_gap:.4f}"
        if scores.unsure is not None and scores.unsure > self.max_unsure:
            return f"network is unsure of {scores.unsure:.1%} of the pixels, more than {self.max_unsure:.1%}"
        if scores.score is not None and scores.score < self.min_score:
            return f"the name's best box has confidence {scores.score:.2f}, less than {self.min_score:.2f}"
        if scores.null_score is not None and scores.null_score > self.max_null * scores.score:
            return (
                f"the null prompt finds the same with confidence {scores.null_score:.2f}, more than "
                f"{self.max_null:.0%} of the name's {scores.score:.2f}"
            )
        if scores.shared is not None and scores.shared < self.min_shared:
            return f"IoU with the other source's mask is {scores.shared:.2f}, less than {self.min_shared:.2f}"
        return None


@dataclass(frozen=True)
class MaskReading:
    """How masks of your own are read, where their files leave it open."""

    _argument_group_name = "how masks of your own are read"

    mask_foreground: list[str] | None = HfArg(
        default=None,
        help="Values of the object in your masks: grey values, palette indices, or colours as R,G,B; needed "
        "where masks hold more than black and one other value, or the object is black (0).",
    )
    mask_ignore: list[str] | None = HfArg(
        default=None, help="Values of pixels that count neither as object nor as background, such as a border."
    )
    mask_orientation: Literal["displayed", "stored"] | None = HfArg(
        default=None,
        help="Whether masks of images with an EXIF orientation fit the image as displayed or as stored; needed "
        "where both are possible.",
    )

    def __post_init__(self):
        shared = self.foreground & self.ignore
        if shared:
            raise UserError(f"--mask_foreground and --mask_ignore both have {listed(shared)}: leave it out of one.")

    @property
    def foreground(self) -> frozenset[int]:
        """The object's values; a colour is one number, see `_code`."""
        return frozenset(_code("--mask_foreground", value) for value in self.mask_foreground or [])

    @property
    def ignore(self) -> frozenset[int]:
        """The values that are neither object nor background."""
        return frozenset(_code("--mask_ignore", value) for value in self.mask_ignore or [])

    def settings(self) -> dict[str, Any]:
        """The flags that were given, for records."""
        return {flag.name: getattr(self, flag.name) for flag in fields(self) if getattr(self, flag.name) is not None}


def colour(red: int, green: int, blue: int) -> int:
    """The number that stands for a colour, as no grey value does."""
    return 1 << 24 | red << 16 | green << 8 | blue


def _code(flag: str, value: str) -> int:
    """The number a value is compared by: itself, or, for R,G,B, one that no grey value is."""
    try:
        numbers = [int(part) for part in str(value).split(",")]
    except ValueError:
        numbers = []
    top = {1: 65535, 3: 255}.get(len(numbers), -1)
    if not all(0 <= number <= top for number in numbers or [-1]):
        raise UserError(f"{flag}: {value!r} is neither a grey value or palette index (128) nor a colour (128,0,0).")
    return numbers[0] if len(numbers) == 1 else colour(*numbers)


def listed(values: set[int]) -> str:
    """The first of a mask's values, as they are written for the flags."""
    shown = [
        f"({value >> 16 & 255},{value >> 8 & 255},{value & 255})" if value >> 24 else str(value)
        for value in (int(value) for value in sorted(values)[:SHOWN_VALUES])
    ]
    return ", ".join(shown) + (f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else "")


NO_FLAGS = MaskReading()
# One for each of `MADE_MASKS`.
OPTIONS = (TokenCutOptions, TextOptions, SaliencyOptions)
