"""From class names to prompts: what is looked for in an image.

A file of overrides is YAML, one line a class folder; "*" stands for every folder that is not named, and for images
without folders:

    tabby: tabby cat                        # another name
    husky: [head of a dog, paws of a dog]   # parts that count
    sloth: {sloth: 1, branch: -1}           # weights; a negative one cuts out what it finds
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from hf_robustvit.errors import UserError
from hf_robustvit.files import read_yaml
from hf_robustvit.imagenet_classes import LEMMAS, WNIDS


logger = logging.getLogger(__name__)

MOST = 1e6  # nor NaN, which no comparison holds for
OBJECT_WEIGHT = 0.5  # a pixel is the object's where the weights of the concepts found there sum to this
_ANY = "*"
_WNID = re.compile(r"n\d{8}(?!\d)")


class Prompts:
    """The concepts that make up each image's object, and their weights.

    Args:
        image_ids: <class folder>/<file>, or <file>.
        overrides: As `read_overrides` returns them.

    Attributes:
        by_class: Concept -> weight, by class folder; "" for images without folders.

    Raises:
        UserError: A class has no name that can be looked for.
    """

    def __init__(self, image_ids: Iterable[str], overrides: dict[str, dict[str, float]]):
        folders = sorted({_folder(image_id) for image_id in image_ids})
        unused = sorted(overrides.keys() - {*folders, _ANY})
        if unused:
            logger.warning("--prompts: no class folder is called %s.", ", ".join(map(repr, unused)))
        self.by_class = {
            folder: overrides.get(folder) or overrides.get(_ANY) or {class_name(folder): 1.0} for folder in folders
        }

    def of(self, image_id: str) -> dict[str, float]:
        """What is looked for in an image: concept -> weight."""
        return self.by_class[_folder(image_id)]

    def another(self, image_id: str) -> str | None:
        """The first concept of another class, half-way round the classes; None if all have the same."""
        own = next(iter(self.of(image_id)))
        names = sorted({next(iter(prompt)) for prompt in self.by_class.values()})
        return names[(names.index(own) + len(names) // 2) % len(names)] if len(names) > 1 else None


def class_name(folder: str) -> str:
    """A class folder's readable name.

    ImageNet's first synonym where the folder begins with one of its wnids; else what is left without a leading
    number or wnid, underscores and full stops: "001.Black_footed_Albatross" is "Black footed Albatross".

    Raises:
        UserError: Nothing readable is left.
    """
    if not folder:
        raise UserError(
            "--source text: the images are in no class folders, so they have no class names: pass --prompts FILE with "
            "the line `'*': the object's name`."
        )
    wnid = _WNID.match(folder)
    if wnid and wnid[0] in WNIDS:
        return LEMMAS[WNIDS.index(wnid[0])].split(",")[0]
    name = plain(re.sub(rf"^({_WNID.pattern}|\d+)([._-]+|$)", "", folder).split(",")[0].replace("_", " "))
    if not any(map(str.isalpha, name)):
        raise UserError(
            f"--source text: the class folder {folder!r} says no name that can be looked for: pass --prompts FILE "
            f"with the line `'{folder}': its name`."
        )
    return name


def read_overrides(path: str | None) -> dict[str, dict[str, float]]:
    """Concept -> weight by class folder, from a file as this module describes it; without one there are none.

    Raises:
        UserError: It cannot be read, or an entry is of another form.
    """
    if not path:
        return {}
    file = Path(path)
    try:
        content, lines = read_yaml(file)
    except ValueError as error:
        raise UserError(f"--prompts {file} cannot be read as YAML ({error}): correct it there or above.") from error
    except OSError as error:
        raise UserError(f"--prompts {file} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--prompts {file} needs lines `class folder: its name`, found {type(content).__name__}.")
    times = Counter(folder.value for folder, _ in lines.value)
    if repeated := [folder for folder in times if times[folder] > 1]:
        raise UserError(f"--prompts {file} has {times[repeated[0]]} lines for {repeated[0]!r}: keep one of them.")
    return {_key(file, folder): _weights(file, folder, entry) for folder, entry in content.items()}


def plain(concept: str) -> str:
    """A concept without full stops, with which some detectors separate concepts, and in single spaces."""
    return " ".join(concept.replace(".", " ").split())


def _key(file: Path, folder: Any) -> str:
    if not isinstance(folder, str):
        raise UserError(f"--prompts {file}: the class folder {folder!r} is not read as text: put it in quotes.")
    return folder


def _weights(file: Path, folder: str, entry: Any) -> dict[str, float]:
    entry = [entry] if isinstance(entry, str) else entry
    entry = dict.fromkeys(entry, 1.0) if isinstance(entry, list) and all(isinstance(c, str) for c in entry) else entry
    valid = isinstance(entry, dict) and all(
        isinstance(concept, str) and plain(concept) and type(weight) in (int, float) and abs(weight) <= MOST
        for concept, weight in entry.items()
    )
    if not valid:
        raise UserError(
            f"--prompts {file}: the entry of {folder!r} is {entry!r}; give a name, a list of names, or names with "
            "weights, {name: weight}."
        )
    if round(sum(weight for weight in entry.values() if weight > 0), 6) < OBJECT_WEIGHT:
        raise UserError(
            f"--prompts {file}: the weights of {folder!r} sum to less than {OBJECT_WEIGHT}, so nothing could be the "
            "object: make them larger."
        )
    # The heaviest first: by it the class is known to the others.
    return {plain(concept): float(entry[concept]) for concept in sorted(entry, key=entry.get, reverse=True)}


def _folder(image_id: str) -> str:
    return PurePosixPath(image_id).parent.name
