"""How the class names of a data set meet the classes of a model."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from hf_robustvit.data.benchmark_rows import Decision
from hf_robustvit.data.labels import class_named, classes_by_name, imagenet_classes
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import WNIDS


_DECIDED = {"first": "", "any": ", any of a class", "mean": ", by the mean probability of a class"}


@dataclass(frozen=True)
class LabelSpace:
    """A data set's classes in terms of a model's.

    Attributes:
        name: How they were matched and decided, for the record: "ImageNet indices", "model label names", ...
        class_names: The data set's class names; position = its label.
        model_indices: For each of them the model's class indices. Most have one; an ObjectNet class may have several,
            of which the first is the one the paper counts.
        num_model_classes: The number of classes the model knows.
        decision: As in `BenchmarkRows`.
    """

    name: str
    class_names: tuple[str, ...]
    model_indices: tuple[tuple[int, ...], ...]
    num_model_classes: int
    decision: Decision = "first"

    @property
    def is_subset(self) -> bool:
        """Whether accuracy among the data set's classes alone is a second protocol: the model knows others."""
        known = {index for indices in self.model_indices for index in indices}
        return self.decision == "first" and len(known) < self.num_model_classes

    @property
    def has_several_indices(self) -> bool:
        """Whether some class of the data set is several classes of the model."""
        return any(len(indices) > 1 for indices in self.model_indices)

    @property
    def right_indices(self) -> tuple[tuple[int, ...], ...]:
        """The model classes that are right for each of the data set's classes."""
        return tuple((index,) for index in self.first_indices) if self.decision == "first" else self.model_indices

    @property
    def first_indices(self) -> tuple[int, ...]:
        """The first model class of each of the data set's classes: the paper's label."""
        return tuple(indices[0] for indices in self.model_indices)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of the data set's classes only: the benchmark authors' protocol.

        A class with several model classes takes the best of them, so any of its indices counts.

        Args:
            logits: (batch, model classes).

        Returns:
            (batch, classes of the data set).
        """
        padded, _ = _padded(self.model_indices, logits.device)
        return logits[:, padded].amax(dim=-1)

    def guess(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's best guesses by the data set's decision.

        Args:
            logits: (batch, model classes).
            count: How many guesses; fewer where there are fewer classes.

        Returns:
            The model's classes, (batch, guesses) int64, and their probabilities. Where means decide, a guess is one of
            the data set's classes: its likeliest index, and its mean probability as a share of all their means.
        """
        probabilities = logits.softmax(dim=1)
        if self.decision != "mean":
            # Ranked by logits: small probabilities underflow to equal zeros.
            indices = logits.topk(min(count, logits.shape[1])).indices
            return indices, probabilities.gather(1, indices)
        padded, is_real = _padded(self.model_indices, logits.device)  # (classes, most indices)
        means = (probabilities[:, padded] * is_real).sum(dim=-1) / is_real.sum(dim=-1)  # (batch, classes)
        best = (means / means.sum(dim=1, keepdim=True)).topk(min(count, means.shape[1]))
        likeliest = logits[:, padded].argmax(dim=-1)  # (batch, classes), a place among the class's indices
        indices = padded.expand(len(logits), -1, -1).gather(2, likeliest[..., None])[..., 0]
        return indices.gather(1, best.indices), best.values


@functools.lru_cache(maxsize=1)  # every batch asks, and a copy to a GPU would wait for what that is computing
def _padded(model_indices: tuple[tuple[int, ...], ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The indices of every class, filled up with its first one, and which of them are no filling."""
    most = max(map(len, model_indices))
    padded = [indices + indices[:1] * (most - len(indices)) for indices in model_indices]
    lengths = torch.tensor([len(indices) for indices in model_indices], device=device)
    return torch.tensor(padded, device=device), torch.arange(most, device=device) < lengths[:, None]


def match_classes(
    dataset: str,
    class_names: Sequence[str],
    imagenet_indices: Mapping[str, tuple[int, ...]] | None,
    config: PretrainedConfig,
    decision: Decision = "first",
    can_be_renamed: bool = True,
) -> LabelSpace:
    """Find a data set's classes among a model's.

    Args:
        dataset: The data set's name, for messages.
        class_names: Its class names, in the order of its labels.
        imagenet_indices: ImageNet indices of each class name; None matches the names with the model's own label names,
            or wnids with the classes of an ImageNet model.
        config: The model's configuration.
        decision: As in `BenchmarkRows`.
        can_be_renamed: Whether the classes are the user's own to name, for messages.

    Raises:
        UserError: The data set needs an ImageNet model and this is not one, it has classes the model does not know, or
            the name of one stands for several of the model's.
    """
    if imagenet_indices is not None:
        order = imagenet_classes(config)
        if order is None:
            counted = f"has {config.num_labels}"
            if config.num_labels == len(WNIDS):
                counted += f" of its own, such as {config.id2label[0]!r}"
            raise UserError(
                f"--dataset {dataset}: its classes are ImageNet's {len(WNIDS)}, and the model {counted}; give an "
                "ImageNet model, or a data set with the model's own classes."
            )
        place = {imagenet: index for index, imagenet in enumerate(order)}
        known = {name: tuple(place[index] for index in indices) for name, indices in imagenet_indices.items()}
        name = f"ImageNet indices{_DECIDED[decision]}"
    else:
        known, name = classes_by_name(config), "model label names"

    missing = [class_name for class_name in class_names if class_name not in known]
    if missing:
        renamed = f"name the classes as the model does ({', '.join(map(repr, list(known)[:3]))}, ...) or "
        raise UserError(
            f"--dataset {dataset}: {len(missing)} of its {len(class_names)} classes are not among the "
            f"{config.num_labels} classes of the model, the first is {missing[0]!r}; "
            f"{renamed if can_be_renamed else ''}give a model with these classes."
        )
    if imagenet_indices is None:
        indices = tuple((class_named(each, known, config, f"--dataset {dataset}"),) for each in class_names)
    else:
        indices = tuple(known[class_name] for class_name in class_names)
    return LabelSpace(name, tuple(class_names), indices, config.num_labels, decision)
