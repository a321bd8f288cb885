"""Masks of the object that stands out, by a dichotomous segmenter (ISNet, U2-Net) in an ONNX file.

transformers has none of its own: its matting models need a trimap (ViTMatte) or a person (Sapiens2), and BiRefNet runs
only with code from the Hub, which is never trusted here.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from hf_robustvit.errors import UserError
from hf_robustvit.flags.masks import SaliencyOptions
from hf_robustvit.masks.quality import MaskScores
from hf_robustvit.masks.tokencut import ObjectMask, WorkingImage


if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SURE = 0.1  # the network is sure of a pixel whose value is nearer to 0 or to 1 than this
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class SaliencyMasks:
    """Masks from a network that gives each pixel's share of foreground.

    Args:
        options: The network, and what its input needs.
        device: Where it runs: on a GPU if onnxruntime is built for it, else on torch's number of CPU threads.

    Raises:
        UserError: No network is named, its file cannot be read, or it takes no batch of RGB images of a fixed size.
    """

    def __init__(self, options: SaliencyOptions, device: torch.device | str = "cpu"):
        options.check()
        self.options = options
        self.origin = f"--saliency_model {options.saliency_model}"
        self.session = open_session(options.saliency_model, torch.device(device))
        first, *others = self.session.get_inputs()
        self.input_name, self.dtype = first.name, None if others else DTYPES.get(first.type)
        match first.shape:
            case [1 | str() | None as batch, 3, int(height), int(width)] if self.dtype and min(height, width) > 0:
                self.channels_first = True
            case [1 | str() | None as batch, int(height), int(width), 3] if self.dtype and min(height, width) > 0:
                self.channels_first = False
            case _:
                found = " and ".join(f"{one.type} of shape {one.shape}" for one in (first, *others))
                raise UserError(
                    f"{self.origin} takes {found}: it must take one batch of RGB images as 32- or 16-bit floats, of "
                    "shape [1, 3, height, width] or [1, height, width, 3] with fixed height and width."
                )
        self.input_size, self.takes_batches = (width, height), batch != 1

    @property
    def settings(self) -> dict[str, Any]:
        """What the masks depend on, for masks.json."""
        return {"source": "saliency", **asdict(self.options)}

    def prepare(self, image: Image.Image) -> WorkingImage:
        """Scale an RGB image to the network's input, whatever its aspect, as these networks are trained."""
        return WorkingImage(image.resize(self.input_size, Image.Resampling.BILINEAR), image.size)

    def __call__(self, images: list[WorkingImage], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of some prepared images; they go through the network together if it takes more than one."""
        parts = [images] if self.takes_batches and images else [[image] for image in images]
        return [
            self._mask(image, shares)
            for part in parts
            for image, shares in zip(part, self._foreground(part), strict=True)
        ]

    def _foreground(self, images: list[WorkingImage]) -> np.ndarray:
        """Each pixel's share of foreground, (batch, height, width) float32 in [0, 1]."""
        pixels = np.stack([np.asarray(image.pixels, dtype=np.float32) for image in images])  # (batch, H, W, 3)
        pixels = (pixels - np.float32(self.options.saliency_mean)) / np.float32(self.options.saliency_std)
        if self.channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        pixels = np.ascontiguousarray(pixels, dtype=self.dtype)
        try:
            first = self.session.get_outputs()[0].name
            output = np.asarray(self.session.run([first], {self.input_name: pixels})[0])
            shares = output.reshape(len(images), *(side for side in output.shape[1:] if side != 1)).astype(np.float32)
        except Exception as error:  # onnxruntime's have no class in common
            raise UserError(f"{self.origin} fails ({' '.join(str(error).split())}): export it again.") from error
        if shares.ndim != 3 or not shares.size:
            raise UserError(f"{self.origin}: its first output has shape {output.shape}, and is no map of each image.")
        if not (shares.min() >= 0 and shares.max() <= 1):
            raise UserError(
                f"{self.origin}: its first output goes from {shares.min():g} to {shares.max():g}, not from 0 to 1: "
                "export the network with a sigmoid at its end."
            )
        return shares

    def _mask(self, image: WorkingImage, shares: np.ndarray) -> ObjectMask:
        foreground, unsure = shares > 0.5, (shares > SURE) & (shares < 1 - SURE)
        pieces = ndimage.label(foreground)[1]
        scores = MaskScores(area=float(foreground.mean()), components=pieces, unsure=float(unsure.mean()))
        resized = Image.fromarray(shares).resize(image.size, Image.Resampling.BILINEAR)
        return ObjectMask(np.asarray(resized) > 0.5, image.size, scores)


def open_session(path: str, device: torch.device) -> "InferenceSession":
    """An ONNX file, ready to run.

    Raises:
        UserError: onnxruntime is missing, or it cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError('--saliency_model needs onnxruntime: pip install "hf-robustvit[onnx]".') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    providers: list = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise UserError(f"--saliency_model {path} is no ONNX file that onnxruntime can run ({error}).") from error
