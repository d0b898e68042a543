"""Transforms of pictures that should not change what is seen in them, or should.

Pictures are float64 [n, height, width, channels], from 0 (black) to 1, and stay in that range.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.errors import GateError

Pictures = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green, blue. Source: ITU-R BT.601

# How JPEG divides the 8×8 frequencies at quality 50. Source: ITU-T T.81, tables K.1 and K.2.
LUMINANCE_STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    float,
)
CHROMINANCE_STEPS = np.full((8, 8), 99.0)
CHROMINANCE_STEPS[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def grayscale(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """All channels become the brightness."""
    if pictures.shape[3] != 3:
        raise GateError(
            f"Grayscale is for pictures of 3 channels; these have {pictures.shape[3]}: leave the gate out"
        )
    gray: Pictures = np.repeat((pictures @ LUMA)[..., None], 3, axis=3)
    return gray


def black(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Nothing is left to see."""
    return np.zeros_like(pictures)


def invert(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """What was dark is light."""
    return 1 - pictures


def brightness(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Lighter by this share of the range; darker where it is negative."""
    return np.clip(pictures + amount, 0, 1)


def contrast(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Distances from each picture's mean times this."""
    mean = pictures.mean(axis=(1, 2, 3), keepdims=True)
    stretched: Pictures = np.clip(mean + (pictures - mean) * amount, 0, 1)
    return stretched


def blur(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """By a Gaussian of this standard deviation in pixels; edges go on as they end."""
    radius = max(1, math.ceil(3 * amount))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / amount) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        widths = [(radius, radius) if one == axis else (0, 0) for one in range(4)]
        padded = np.pad(pictures, widths, mode="edge")
        extent = pictures.shape[axis]
        blurred = np.zeros_like(pictures)
        for offset, weight in enumerate(weights):
            blurred += weight * np.take(padded, range(offset, offset + extent), axis)
        pictures = blurred
    return np.clip(pictures, 0, 1)


def noise(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Gaussian noise of this standard deviation, as a share of the range."""
    random = np.random.default_rng(seed)
    return np.clip(pictures + random.normal(0, amount, pictures.shape), 0, 1)


def rotate(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Counter-clockwise by so many degrees, between pixels as is between them; edges go on as they end."""
    _, height, width, _ = pictures.shape
    angle = math.radians(amount)
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    from_y = math.cos(angle) * y + math.sin(angle) * x + (height - 1) / 2
    from_x = -math.sin(angle) * y + math.cos(angle) * x + (width - 1) / 2
    return _between(pictures, from_y, from_x)


def crop(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """The middle, without this share of each side in all, as large as the picture was."""
    _, height, width, _ = pictures.shape
    keep = 1 - amount
    y, x = np.mgrid[:height, :width].astype(float)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    return _between(pictures, middle_y + (y - middle_y) * keep, middle_x + (x - middle_x) * keep)


def _between(pictures: Pictures, y: Pictures, x: Pictures) -> Pictures:
    """The pictures at these places between their pixels, [height, width]."""
    _, height, width, _ = pictures.shape
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, over = (y - top)[None, :, :, None], (x - left)[None, :, :, None]
    upper = pictures[:, top, left] * (1 - over) + pictures[:, top, right] * over
    lower = pictures[:, bottom, left] * (1 - over) + pictures[:, bottom, right] * over
    between: Pictures = upper * (1 - down) + lower * down
    return between


def occlude(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """A black rectangle of this share of each side, somewhere else in each picture."""
    count, height, width, _ = pictures.shape
    tall, wide = (max(1, round(extent * amount)) for extent in (height, width))
    random = np.random.default_rng(seed)
    top = random.integers(0, height - tall + 1, count)[:, None, None, None]
    left = random.integers(0, width - wide + 1, count)[:, None, None, None]
    y, x = np.arange(height)[None, :, None, None], np.arange(width)[None, None, :, None]
    covered = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
    return np.where(covered, 0.0, pictures)


def flip_horizontal(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Left is right."""
    return pictures[:, :, ::-1]


def flip_vertical(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Top is bottom."""
    return pictures[:, ::-1]


def channel_order(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """Blue, green, red for red, green, blue."""
    if pictures.shape[3] < 2:
        raise GateError("ChannelOrder is for pictures of several channels: leave the gate out")
    return pictures[..., ::-1]


def jpeg(pictures: Pictures, amount: float, seed: int) -> Pictures:
    """What is left by JPEG of this quality (1 to 100): rounded frequencies of 8×8 blocks.

    The rest of JPEG loses nothing, except that colours are not sampled at half the size here.
    """
    if pictures.shape[3] not in (1, 3):
        raise GateError(f"JPEG is for 1 or 3 channels; these pictures have {pictures.shape[3]}")
    scale = 5000 / amount if amount < 50 else 200 - 2 * amount
    levels = np.round(pictures * 255)
    if pictures.shape[3] == 3:
        levels = _to_ycc(levels)
    for channel in range(levels.shape[3]):
        steps = LUMINANCE_STEPS if channel == 0 else CHROMINANCE_STEPS
        divisors = np.clip(np.floor((steps * scale + 50) / 100), 1, 255)
        levels[..., channel] = _rounded_blocks(levels[..., channel] - 128, divisors) + 128
    if pictures.shape[3] == 3:
        levels = _from_ycc(levels)
    return np.clip(np.round(levels), 0, 255) / 255


def _to_ycc(rgb: Pictures) -> Pictures:
    """Brightness and two colour differences about 128. Source: JFIF 1.02."""
    y = rgb @ LUMA
    blue = (rgb[..., 2] - y) / (2 - 2 * LUMA[2]) + 128
    red = (rgb[..., 0] - y) / (2 - 2 * LUMA[0]) + 128
    return np.round(np.stack([y, blue, red], axis=3))


def _from_ycc(ycc: Pictures) -> Pictures:
    y, blue, red = ycc[..., 0], ycc[..., 1] - 128, ycc[..., 2] - 128
    r = y + (2 - 2 * LUMA[0]) * red
    b = y + (2 - 2 * LUMA[2]) * blue
    g = (y - LUMA[0] * r - LUMA[2] * b) / LUMA[1]
    return np.stack([r, g, b], axis=3)


def _rounded_blocks(levels: Pictures, divisors: Pictures) -> Pictures:
    """[n, height, width] with the frequencies of its blocks rounded to multiples."""
    count, height, width = levels.shape
    tall, wide = -height % 8, -width % 8
    padded = np.pad(levels, ((0, 0), (0, tall), (0, wide)), mode="edge")
    blocks = padded.reshape(count, (height + tall) // 8, 8, (width + wide) // 8, 8)
    blocks = blocks.swapaxes(2, 3)
    k, n = np.mgrid[:8, :8]
    cosines = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    cosines[0] /= np.sqrt(2)
    frequencies = np.round((cosines @ blocks @ cosines.T) / divisors) * divisors
    back = (cosines.T @ frequencies @ cosines).swapaxes(2, 3).reshape(padded.shape)
    rounded: Pictures = back[:, :height, :width]
    return rounded


Transform = Callable[[Pictures, float, int], Pictures]
