"""Ten kinds of scenes, made with numpy, that the objects of Cutouts stand in front of.

Every scene is a function from a random generator to an image (3, 64, 64) of float32, roughly in [0, 255]. Noise is
drawn as small grids of integers and enlarged by Pillow in fixed point, and only exactly rounded float operations
follow, so that a seed gives the same pixels on every machine.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image


SIZE = 64
SHAPE = (3, SIZE, SIZE)
ROWS = np.arange(SIZE, dtype=np.float32)[:, None]
COLUMNS = np.arange(SIZE, dtype=np.float32)[None, :]


def noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Smooth noise (64, 64) in [-1, 1] from a grid of `rows` x `columns` random values."""
    grid = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    if (rows, columns) != (SIZE, SIZE):
        grid = grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(grid, dtype=np.float32) / np.float32(127.5) - 1


def ridge(rng: np.random.Generator, low: int, high: int, knots: int) -> np.ndarray:
    """A hilly line: the row (1, 64) at which the ground begins in each column, between `low` and `high`."""
    return low + (high - low) * (noise(rng, 1, knots)[:1] + 1) / 2


def colour(rng: np.random.Generator, red: int, green: int, blue: int, spread: int = 18) -> np.ndarray:
    """A colour (3, 1, 1) near the given one."""
    return (np.array([red, green, blue]) + rng.integers(-spread, spread + 1, 3)).astype(np.float32)[:, None, None]


def blend(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix two colours or images; weight (64, 64), clipped to [0, 1], is the share of `above`."""
    return below + (above - below) * np.clip(weight, 0, 1)


def gradient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """An image that fades from one colour to another; every column is the same: (3, 64, 1)."""
    return blend(top, bottom, ROWS / (SIZE - 1))


def sea(rng: np.random.Generator) -> np.ndarray:
    air = gradient(colour(rng, 120, 180, 225), colour(rng, 215, 230, 238))
    water = gradient(colour(rng, 40, 140, 175), colour(rng, 10, 60, 115))
    waves = noise(rng, rows=int(rng.integers(18, 30)), columns=int(rng.integers(4, 9)))
    water = blend(water + 22 * waves, colour(rng, 225, 240, 245), (waves - np.float32(0.62)) * 4)
    return blend(air, water, ROWS - rng.integers(6, 28, dtype=np.int16))


def meadow(rng: np.random.Generator) -> np.ndarray:
    air = gradient(colour(rng, 135, 195, 235), colour(rng, 220, 235, 225))
    grass = gradient(colour(rng, 135, 195, 75), colour(rng, 60, 140, 40))
    grass = grass + 26 * noise(rng, 22, SIZE) + 12 * noise(rng, 5, 5)
    grass = blend(grass, colour(rng, 240, 220, 120), noise(rng, SIZE, SIZE) > np.float32(0.985))
    low, high = sorted(rng.integers(2, 26, 2).tolist())
    return blend(air, grass, ROWS - ridge(rng, low, high, knots=5))


def forest(rng: np.random.Generator) -> np.ndarray:
    image = gradient(colour(rng, 40, 85, 45), colour(rng, 30, 50, 25))
    image = image + 24 * noise(rng, 14, 14) + 12 * noise(rng, 32, 32)
    bark = 16 * noise(rng, 12, SIZE)
    for centre in rng.integers(0, SIZE, rng.integers(4, 8), dtype=np.int16):
        half_width = rng.integers(3, 9, dtype=np.int16) / np.float32(2)
        image = blend(image, colour(rng, 85, 62, 42) + bark, half_width - np.abs(COLUMNS - centre))
    ground = colour(rng, 70, 60, 35) + 22 * noise(rng, 24, 16)
    return blend(image, ground, ROWS - ridge(rng, 48, 62, knots=6))


def sky(rng: np.random.Generator) -> np.ndarray:
    image = gradient(colour(rng, 60, 125, 215), colour(rng, 150, 200, 240))
    clouds = noise(rng, *rng.integers(3, 8, 2).tolist()) + noise(rng, 16, 12) / 3
    threshold = rng.integers(0, 40, dtype=np.int16) / np.float32(100)
    return blend(image, colour(rng, 243, 246, 250), (clouds - threshold) * 2)


def desert(rng: np.random.Generator) -> np.ndarray:
    image = gradient(colour(rng, 110, 175, 225), colour(rng, 250, 225, 180))
    low = int(rng.integers(4, 22))
    for step in range(3):
        crest = ridge(rng, low + 12 * step, low + 12 * step + 14, knots=int(rng.integers(3, 6)))
        sand = colour(rng, 225 - 14 * step, 178 - 16 * step, 105 - 14 * step) + 7 * noise(rng, 30, 8)
        image = blend(image, sand - np.clip(ROWS - crest, 0, 30) / 2, ROWS - crest)
    return image


def snow(rng: np.random.Generator) -> np.ndarray:
    image = gradient(colour(rng, 165, 180, 200), colour(rng, 215, 222, 230))
    low = int(rng.integers(4, 20))
    image = blend(image, colour(rng, 150, 165, 190), ROWS - ridge(rng, low, low + 16, knots=9))
    drifts = colour(rng, 236, 240, 247, spread=8) + 10 * noise(rng, 9, 5)
    image = blend(image, drifts, ROWS - ridge(rng, low + 10, low + 22, knots=5))
    return blend(image, colour(rng, 250, 250, 255, spread=5), (noise(rng, 40, 40) - np.float32(0.72)) * 6)


def city(rng: np.random.Generator) -> np.ndarray:
    image = np.array(np.broadcast_to(gradient(colour(rng, 150, 160, 190), colour(rng, 225, 205, 190)), SHAPE))
    is_lit = np.kron(rng.integers(0, 100, (16, 16)) < rng.integers(25, 75), np.ones((4, 4), dtype=bool))
    windows = is_lit & (ROWS % 4 >= 2) & (COLUMNS % 4 >= 2)
    left = 0
    while left < SIZE:
        right, top = left + int(rng.integers(8, 18)), int(rng.integers(2, 34))
        front = blend(colour(rng, 105, 105, 115, spread=30), colour(rng, 240, 215, 140), windows[top:, left:right])
        image[:, top:, left:right] = front
        left = right
    road = int(rng.integers(52, 60))
    image[:, road:] = colour(rng, 70, 70, 75, spread=10)
    image[:, road + 3, :: int(rng.integers(2, 5))] = 225
    return image + 8 * noise(rng, 32, 32)


def room(rng: np.random.Generator) -> np.ndarray:
    period = int(rng.integers(6, 14))
    stripes = (COLUMNS % period < period // 2) * rng.integers(4, 22, dtype=np.int16)
    image = np.array(np.broadcast_to(colour(rng, 220, 200, 180, spread=25) - stripes, SHAPE))
    left, top = rng.integers(2, 44, 2)
    image[:, top - 2 : top + 16, left - 2 : left + 18] = colour(rng, 110, 75, 50)
    image[:, top : top + 14, left : left + 16] = colour(rng, 160, 170, 160, spread=60)
    floor = int(rng.integers(40, 56))
    boards = colour(rng, 160, 110, 65) + 16 * noise(rng, 12, 3) - 35 * (ROWS % 5 == 4)
    image[:, floor:] = boards[:, floor:]
    image[:, floor - 3 : floor] = colour(rng, 240, 235, 225, spread=8)
    return image + 4 * noise(rng, 20, 20)


def brick(rng: np.random.Generator) -> np.ndarray:
    height, width = int(rng.integers(5, 9)), int(rng.integers(10, 18))
    down = ROWS + rng.integers(height, dtype=np.int16)
    across = COLUMNS + rng.integers(width, dtype=np.int16) + (down // height % 2) * (width // 2)
    tones = rng.integers(-22, 23, 101).astype(np.float32)
    tone = tones[(down // height * 37 + across // width).astype(np.int16) % 101]
    mortar = (down % height < 1) | (across % width < 1)
    image = blend(colour(rng, 165, 80, 62) + tone, colour(rng, 200, 190, 178), mortar)
    return image + 12 * noise(rng, SIZE, SIZE)


def space(rng: np.random.Generator) -> np.ndarray:
    image = colour(rng, 16, 14, 34, spread=12)
    for _ in range(2):
        cloud = noise(rng, 4, 4) + noise(rng, 10, 10) / 3
        image = blend(image, colour(rng, 95, 50, 125, spread=45), cloud / 2)
    return blend(image, colour(rng, 240, 240, 230), (noise(rng, SIZE, SIZE) - np.float32(0.97)) * 30)


SCENES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    scene.__name__: scene for scene in (sea, meadow, forest, sky, desert, snow, city, room, brick, space)
}


def draw_scene(name: str, rng: np.random.Generator) -> Image.Image:
    """Draw one scene.

    Args:
        name: A key of `SCENES`.
        rng: Decides the scene's colours, textures and layout, and a brightness between 75 and 115 %.

    Returns:
        An RGB image of 64x64 pixels.
    """
    brightness = np.float32(rng.integers(75, 116) / 100)
    pixels = SCENES[name](rng) * brightness
    return Image.fromarray(np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)))
