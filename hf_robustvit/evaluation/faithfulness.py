"""Maps and models judged by more than the rule they may have been trained on: occlusion, SaCo, and noise.

None of it uses the gradients that the maps come from. It costs some 70 forward passes an image, so a flag asks for it.
"""

import torch
from torch import nn

from hf_robustvit.data.transforms import normalization
from hf_robustvit.evaluation import maps
from hf_robustvit.evaluation.maps import relevance_in_mask
from hf_robustvit.evaluation.one_pass import SQUASHED, Batch, Measurement
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.relevance import explain
from hf_robustvit.relevance.occlusion import class_probability


GROUPS = 10  # of pixels, as in SaCo's paper
#: Noise of this strength over a whole image would have the energy of all the noise that is put on one part of it: an
#: l2 norm of 97 at 224 pixels, amid the 25 to 200 of RIVAL10's authors.
NOISE = 0.25
DRAWS = 3


def applies(run: BenchmarkRun) -> bool:
    """Whether this is asked for, and the data set gets the tests that need masks."""
    return run.faithfulness and maps.applies(run)


def measurement(run: BenchmarkRun) -> Measurement:
    """Explain every image by occlusion, test its usual map by SaCo, and put noise on its object and around it.

    Columns: `relevance_in_mask_occlusion`, of the predicted class's occlusion map; `saco` in [-1, 1] of its usual map;
    and, where there are labels, `foreground_noise` and `background_noise`, see `accuracy_under_noise`.
    """
    model = run.checkpoint.model
    images = run.images(squashed=True, with_masks=True)
    mean, std = (values.to(run.accelerator.device) for values in normalization(images.image_processor))
    classes = run.data.first_indices.to(run.accelerator.device) if run.data.label_space else None  # (images,)

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        pixels, mask = batch.inputs[SQUASHED]["pixel_values"], batch.inputs[SQUASHED]["mask"]
        explanation = batch.explanation
        occluded = explain(model, pixels, explanation.target, method="occlusion")
        outputs = {
            "relevance_in_mask_occlusion": relevance_in_mask(occluded.relevance[:, 0], mask),
            "saco": saco(model, pixels, explanation.relevance[:, 0], explanation.target),
        }
        if classes is not None:
            seeds, labels = batch.index.tolist(), classes[batch.index]
            for name, part in (("foreground_noise", mask == 1), ("background_noise", mask == 0)):
                outputs[name] = accuracy_under_noise(model, pixels, part, labels, mean, std, seeds)
        return outputs

    return Measurement({SQUASHED: images}, step)


def saco(
    model: nn.Module, pixel_values: torch.Tensor, relevance: torch.Tensor, target: torch.Tensor, groups: int = GROUPS
) -> torch.Tensor:
    """The Salience-guided Faithfulness Coefficient (Wu et al., "On the Faithfulness of Vision Transformer
    Explanations", CVPR 2024, Algorithm 1).

    The pixels, sorted by their relevance, make groups of (almost) equal size; each group alone is replaced by the
    image's mean colour. Each pair of groups counts with the difference of their summed relevance: for the map if the
    group with more relevance costs the class at least as much probability, else against it.

    Args:
        model: The classifier.
        pixel_values: (batch, 3, height, width), normalised.
        relevance: (batch, height, width).
        target: (batch,) int64, the class that the maps explain.
        groups: Number of groups, each of which costs a forward pass.

    Returns:
        (batch,) float32 in [-1, 1]; about 0 for a random map, and 0 for a constant one.
    """
    flat = relevance.flatten(1).float()
    places = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 is the most relevant pixel
    group = places * groups // flat.shape[1]  # (batch, pixels)
    salience = flat.new_zeros(len(flat), groups).scatter_add_(1, group, flat)
    mean_colour = pixel_values.mean(dim=(2, 3), keepdim=True)
    whole = class_probability(model, pixel_values, target)
    is_in = (group.view_as(relevance)[:, None] == number for number in range(groups))
    without = [class_probability(model, torch.where(pixels, mean_colour, pixel_values), target) for pixels in is_in]
    drops = whole[:, None] - torch.stack(without, dim=1)  # (batch, groups)
    gaps = (salience[:, :, None] - salience[:, None]).triu()  # (batch, more relevant group, less relevant group)
    agrees = drops[:, :, None] >= drops[:, None]
    return torch.where(agrees, gaps, -gaps).sum(dim=(1, 2)) / gaps.sum(dim=(1, 2)).clamp(min=1e-12)


def accuracy_under_noise(
    model: nn.Module,
    pixel_values: torch.Tensor,
    part: torch.Tensor,
    labels: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    seeds: list[int],
    draws: int = DRAWS,
) -> torch.Tensor:
    """How often a model is right when a part of an image has Gaussian noise of a given energy, however large the part.

    As Moayeri et al. (CVPR 2022) put it on foreground or background: scaled to a fixed l2 norm, and colours clipped to
    [0, 1]. `summaries` makes relative foreground sensitivity of it.

    Args:
        model: The classifier.
        pixel_values: (batch, 3, height, width), normalised.
        part: (batch, height, width) bool, where noise is put.
        labels: (batch,) int64, the right class, among all of the model's.
        mean, std: (3, 1, 1), of the normalisation.
        seeds: One for each image: its noise does not depend on its batch.
        draws: How often noise is drawn.

    Returns:
        (batch,) float32 in [0, 1], over the draws.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    colours = pixel_values * std + mean
    norm = NOISE * colours[0].numel() ** 0.5
    hits = torch.zeros(len(labels), device=labels.device)
    for _ in range(draws):
        noise = torch.stack([torch.randn(colours.shape[1:], generator=generator) for generator in generators])
        noise = noise.to(colours.device) * part[:, None]
        noise = norm * nn.functional.normalize(noise.flatten(1), dim=1).view_as(colours)
        noisy = ((colours + noise).clamp(0, 1) - mean) / std
        hits += model(pixel_values=noisy).logits.argmax(dim=1) == labels
    return hits / draws
