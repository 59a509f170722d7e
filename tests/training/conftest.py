"""A handful of pictures in the layout of the portrait set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from training.autoencoder import Shape, begin
from training.batches import Batches
from training.crops import pack
from training.portraits import Portrait, read_portraits

from afterdetail.types import RGB
from training import batches as drawn

PHOTO = Path(__file__).parents[1] / "data" / "photos" / "skimage_astronaut.png"
FACE = (56.0, 40.0, 136.0, 150.0)


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[Portrait]:
    folder = tmp_path_factory.mktemp("portraits")
    (folder / "img").mkdir()
    face = Image.open(PHOTO).convert("RGB").crop((130, 20, 330, 220))
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for seed in range(6):
            turned = face.resize((192, 192)).rotate(4 * seed - 10)
            turned.save(folder / "img" / f"{seed:06}.png")
            record = {
                "file": f"img/{seed:06}.png",
                "caption": "a photo of a woman, smiling",
                "box": FACE,
                "attr": {"age": 40 + seed},
                "seed": seed,
            }
            lines.write(json.dumps(record) + "\n")
    return read_portraits(folder)


@pytest.fixture(scope="session")
def crops(portraits: list[Portrait], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    pack(portraits, "train", folder, per_portrait=2, seed=3)
    return folder


@pytest.fixture(scope="session")
def varied(portraits: list[Portrait], crops: Path) -> Path:
    """Two heads of three variants each, beside the crops."""
    captions = ["a man, sad", "a man, smiling, bald", "a old man, angry"]
    heads = [
        replace(portrait, seed=seed, caption=caption)
        for seed, three in ((8, portraits[:3]), (9, portraits[3:]))
        for portrait, caption in zip(three, captions, strict=True)
    ]
    pack(heads, "variants", crops, per_portrait=1, seed=3)
    return crops


@pytest.fixture(scope="session")
def sharp(crops: Path) -> RGB:
    return np.asarray(np.load(crops / "train-sharp.npy"), np.uint8)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As the training commands run: tiny steps on several threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def linear(crops: Path) -> AutoencoderKL:
    """The autoencoder as training begins with it. Not to be changed."""
    torch.manual_seed(0)
    return begin(Shape(), crops)


@pytest.fixture
def autoencoder(linear: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are encoded by ``linear``."""
    monkeypatch.setattr(drawn, "load_autoencoder", lambda: linear)


@pytest.fixture
def batches(crops: Path, autoencoder: None) -> Batches:  # noqa: ARG001
    return Batches(crops, size=4)
