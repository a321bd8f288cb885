"""The splits of Cutouts: which object, in which style, scene, size, place and rotation each image shows."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from hf_robustvit.cutouts.assets import CLASS_NAMES, USUAL_SCENES, load_cutouts, objects_of_classes
from hf_robustvit.cutouts.scenes import SCENES, SIZE, draw_scene
from hf_robustvit.errors import UserError, unknown_name


VERSION = "1.0.0"
"""Part of every image's seed, so it must change whenever any pixel of any split changes."""

TRAINING_STYLES = ("fluent", "noto", "twemoji")
NEW_STYLES = ("openmoji",)

SIDES = tuple(range(10, 61, 5))
ROTATIONS = tuple(range(0, 360, 20))
LOCATIONS = tuple((x / 8, y / 8) for y in range(1, 8) for x in range(1, 8))


@dataclass(frozen=True)
class Split:
    """How the images of a split are made.

    Attributes:
        num_images: Images the benchmark of this split has. More can be rendered.
        usual_scene: Share of images whose scene is the class's usual one; 0 is never, None draws any of the ten alike.
        styles: Art styles the objects are drawn in.
        new_objects: Show the objects no model is trained on, instead of the training objects.
        sides: Smallest and largest length of the object's longer side, in pixels of an image of 64.
        rotation: Largest rotation to either side, in degrees.
        sketch: Grey edges of the object on white, instead of a scene.
        grid: SI-Score's protocol: the values of the one factor named by `factor`; all else stays the same for as many
            consecutive images as there are values.
        factor: "side", "rotation" or "location"; the factor the grid varies.
    """

    num_images: int = 2100
    usual_scene: float | None = 0.97
    styles: tuple[str, ...] = TRAINING_STYLES
    new_objects: bool = False
    sides: tuple[int, int] = (20, 48)
    rotation: int = 15
    sketch: bool = False
    factor: str | None = None
    grid: tuple = (None,)


SPLITS = {
    "val": Split(),
    "v2": Split(new_objects=True),
    "a": Split(usual_scene=0),
    "r": Split(usual_scene=None, styles=NEW_STYLES),
    "sketch": Split(sketch=True),
    "viewpoint": Split(usual_scene=None, sides=(14, 56), rotation=180),
    "location": Split(
        num_images=49 * 60, usual_scene=None, sides=(24, 24), rotation=0, factor="location", grid=LOCATIONS
    ),
    "rotation": Split(num_images=18 * 120, usual_scene=None, sides=(32, 32), factor="rotation", grid=ROTATIONS),
    "size": Split(num_images=11 * 180, usual_scene=None, rotation=0, factor="side", grid=SIDES),
    "segmentation": Split(),
    # Not benchmarks: what models are trained on, and what settings are chosen with.
    "pretrain": Split(usual_scene=None, sides=(14, 56), rotation=30),
    "train": Split(num_images=3000),
    "dev": Split(),
    "dev-a": Split(usual_scene=0),
    "dev-viewpoint": Split(usual_scene=None, sides=(14, 56), rotation=180),
}
BENCHMARK_SPLITS = ("val", "v2", "a", "r", "sketch", "viewpoint", "location", "rotation", "size", "segmentation")


@dataclass(frozen=True)
class CutoutsImage:
    """One image and what it shows.

    Attributes:
        image: RGB, 64x64.
        mask: 8-bit grey, 64x64: the object's alpha channel, the exact foreground mask.
        label: Index into `CLASS_NAMES`.
        style: Art style.
        object: Name of the object.
        scene: Name of the scene, "white" for sketches.
        area: Share of the image that the object's bounding square covers before rotation.
        rotation: Counter-clockwise, in degrees.
        location: Centre of the object (x, y) as shares of the image's width and height.
    """

    image: Image.Image = field(repr=False)
    mask: Image.Image = field(repr=False)
    label: int
    style: str
    object: str
    scene: str
    area: float
    rotation: int
    location: tuple[float, float]


def training_objects(class_name: str) -> tuple[str, ...]:
    """The objects of a class that may be trained on: all but the third and every fifth after it."""
    return tuple(name for i, name in enumerate(objects_of_classes()[class_name]) if i % 5 != 2)


def new_objects(class_name: str) -> tuple[str, ...]:
    """The objects of a class that only split v2 shows: the third and every fifth after it."""
    return objects_of_classes()[class_name][2::5]


def choose_scene(rng: np.random.Generator, usual: str, share: float | None) -> str:
    """Draw a scene; see `Split.usual_scene` for the share."""
    if share is None:
        return str(rng.choice(list(SCENES)))
    others = [name for name in SCENES if name != usual]
    drawn = str(rng.choice(others))
    return usual if rng.random() < share else drawn


def paste(cutout: Image.Image, side: int, rotation: int, location: tuple[float, float]) -> Image.Image:
    """The cut-out, scaled, rotated and moved to its place, on a transparent image of 64x64."""
    scale = side / max(cutout.size)
    width, height = (max(1, round(length * scale)) for length in cutout.size)
    cutout = cutout.resize((width, height), Image.Resampling.BILINEAR)
    if rotation:
        cutout = cutout.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    left, top = (round(share * SIZE - length / 2) for share, length in zip(location, cutout.size, strict=True))
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(cutout, (left, top))
    return layer


def draw_sketch(layer: Image.Image) -> Image.Image:
    """Grey edges of an object on white."""
    white = Image.new("RGBA", layer.size, "white")
    grey, alpha = Image.alpha_composite(white, layer).convert("L"), layer.getchannel("A")
    outlines = (ImageChops.subtract(channel, channel.filter(ImageFilter.MinFilter(3))) for channel in (grey, alpha))
    edges = ImageChops.lighter(*outlines)
    return ImageChops.invert(edges).convert("RGB")


def render(split: str, index: int) -> CutoutsImage:
    """Make one image.

    The same split, index and `VERSION` give the same pixels, whatever else is rendered. The classes take turns.
    In a split with a grid, images that follow each other differ in its factor only, until the grid is run through.

    Args:
        split: A key of `SPLITS`.
        index: 0 or more; not bounded by the split's `num_images`.

    Raises:
        UserError: There is no such split, or the index is negative.
    """
    if split not in SPLITS:
        raise unknown_name("split of Cutouts", split, SPLITS)
    if index < 0:
        raise UserError(f"index of a Cutouts image: {index} is negative; give 0 or more.")
    recipe = SPLITS[split]
    sample, position = divmod(index, len(recipe.grid))
    seed = hashlib.blake2b(f"{VERSION}/{split}/{sample}".encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))

    label = sample % len(CLASS_NAMES)
    class_name = CLASS_NAMES[label]
    objects = new_objects(class_name) if recipe.new_objects else training_objects(class_name)
    object_name, style = objects[rng.integers(len(objects))], recipe.styles[rng.integers(len(recipe.styles))]
    scene = choose_scene(rng, USUAL_SCENES[class_name], recipe.usual_scene)
    factors = {
        "side": int(rng.integers(recipe.sides[0], recipe.sides[1] + 1)),
        "rotation": int(rng.integers(-recipe.rotation, recipe.rotation + 1)),
    }
    margin = factors["side"] / SIZE / 2
    factors["location"] = tuple(margin + (1 - 2 * margin) * float(share) for share in rng.random(2))
    is_mirrored = rng.random() < 0.5
    if recipe.factor:
        factors[recipe.factor] = recipe.grid[position]

    cutout = load_cutouts()[style, class_name, object_name]
    if is_mirrored:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    layer = paste(cutout, **factors)
    mask = layer.getchannel("A")
    if recipe.sketch:
        scene, image = "white", draw_sketch(layer)
    else:
        image = draw_scene(scene, rng)
        image.paste(layer, mask=mask)
    area = (factors["side"] / SIZE) ** 2
    return CutoutsImage(image, mask, label, style, object_name, scene, area, factors["rotation"], factors["location"])
