"""How the class names of a data set meet the classes of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from hf_robustvit.data.labels import class_named, classes_by_name, imagenet_classes
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import WNIDS


@dataclass(frozen=True)
class LabelSpace:
    """A data set's classes in terms of a model's.

    Attributes:
        name: How they were matched, for the record: "ImageNet indices" or "model label names".
        class_names: The data set's class names; position = its label.
        model_indices: For each of them the model's class indices. Most have one; an ObjectNet class may have several,
            of which the first is the one the paper counts.
        num_model_classes: The number of classes the model knows.
    """

    name: str
    class_names: tuple[str, ...]
    model_indices: tuple[tuple[int, ...], ...]
    num_model_classes: int

    @property
    def is_subset(self) -> bool:
        """Whether the model knows classes that the data set lacks."""
        return len({index for indices in self.model_indices for index in indices}) < self.num_model_classes

    @property
    def has_several_indices(self) -> bool:
        """Whether some class of the data set is several classes of the model."""
        return any(len(indices) > 1 for indices in self.model_indices)

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
        most = max(map(len, self.model_indices))
        # Repeating the first index fills the rows up and changes no maximum.
        padded = [indices + indices[:1] * (most - len(indices)) for indices in self.model_indices]
        return logits[:, torch.tensor(padded, device=logits.device)].amax(dim=-1)


def match_classes(
    dataset: str,
    class_names: Sequence[str],
    imagenet_indices: Mapping[str, tuple[int, ...]] | None,
    config: PretrainedConfig,
) -> LabelSpace:
    """Find a data set's classes among a model's.

    Args:
        dataset: The data set's name, for messages.
        class_names: Its class names, in the order of its labels.
        imagenet_indices: ImageNet indices of each class name; None matches the names with the model's own label names,
            or wnids with the classes of an ImageNet model.
        config: The model's configuration.

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
        name = "ImageNet indices"
    else:
        known, name = classes_by_name(config), "model label names"

    missing = [class_name for class_name in class_names if class_name not in known]
    if missing:
        raise UserError(
            f"--dataset {dataset}: {len(missing)} of its {len(class_names)} classes are not among the "
            f"{config.num_labels} classes of the model, the first is {missing[0]!r}; name the classes as the model "
            f"does ({', '.join(map(repr, list(known)[:3]))}, ...) or give a model with these classes."
        )
    if imagenet_indices is None:
        indices = tuple((class_named(each, known, config, f"--dataset {dataset}"),) for each in class_names)
    else:
        indices = tuple(known[class_name] for class_name in class_names)
    return LabelSpace(name, tuple(class_names), indices, config.num_labels)
