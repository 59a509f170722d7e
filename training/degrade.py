"""What diffusion models and the web do to small faces: shrunk, smeared, doubled, compressed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from afterdetail.types import RGB

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def degrade(rgb: RGB, face: float, rng: np.random.Generator) -> RGB:
    """``rgb`` as if its face, ``face`` pixels high, had been painted 16 to 40 pixels high.

    The picture keeps its size. About half are smeared or doubled before they are shrunk, as a
    diffusion model misplaces features; half are saved as JPEG, some with noise.
    """
    factor = max(1.5, face / float(np.exp(rng.uniform(np.log(16), np.log(40)))))
    picture = rgb
    if rng.random() < 0.35:
        picture = smear(picture, face * rng.uniform(0.004, 0.014), rng)
    if rng.random() < 0.25:
        picture = double(picture, face * rng.uniform(0.02, 0.05), rng)
    return shrink(picture, factor, rng)


def smear(rgb: RGB, reach: float, rng: np.random.Generator) -> RGB:
    """Moves every pixel by a smooth random field of about ``reach`` pixels."""
    height, width = rgb.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows = np.clip(rows + reach * _field(height, width, rng), 0, height - 1)
    columns = np.clip(columns + reach * _field(height, width, rng), 0, width - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = rgb[top, left] * (1 - right) + rgb[top, beside] * right
    lower = rgb[below, left] * (1 - right) + rgb[below, beside] * right
    return _as_rgb(upper * (1 - down) + lower * down)


def double(rgb: RGB, reach: float, rng: np.random.Generator) -> RGB:
    """Blends the picture with itself, shifted by ``reach`` pixels in a random direction."""
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5)
    margin = int(np.ceil(reach))
    height, width = rgb.shape[:2]
    wide = Image.fromarray(np.pad(rgb, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    shift = (1, 0, margin + reach * np.cos(angle), 0, 1, margin + reach * np.sin(angle))
    ghost = wide.transform(
        (width, height), Image.Transform.AFFINE, shift, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(Image.blend(Image.fromarray(rgb), ghost, share))


def shrink(rgb: RGB, factor: float, rng: np.random.Generator) -> RGB:
    """Down by ``factor`` and up again; some blurred, noisy or compressed on the way."""
    picture = Image.fromarray(rgb)
    width, height = picture.size
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    down, up = (FILTERS[i] for i in rng.integers(0, len(FILTERS), 2))
    shrunk = picture.resize(small, down)
    if rng.random() < 0.3:
        shrunk = shrunk.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 6), (small[1], small[0], 3))
        shrunk = Image.fromarray(_as_rgb(np.asarray(shrunk) + noise))
    large = shrunk.resize((width, height), up)
    return _jpeg(large, int(rng.integers(50, 95))) if rng.random() < 0.5 else np.asarray(large)


def _jpeg(picture: Image.Image, quality: int) -> RGB:
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _field(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    coarse = Image.fromarray(rng.normal(size=(8, 8)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _as_rgb(values: npt.NDArray[np.floating]) -> RGB:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
