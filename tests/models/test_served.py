"""A catalogue of the user's own, from its file to pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from afterdetail import Detailer
from afterdetail.errors import InvalidInput, WeightsError
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB

SIDE = 64
ENTRY = '[[model]]\nname = "{}"\nkind = "{}"\nbase = "{}"\nsizes = ["64x64"]\npath = "{}"\n'


def line_lora(model: DiffusionModel, folder: Path) -> Path:
    """A LoRA of every attention layer of the UNet."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, layer in model.unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            rows, columns = layer.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn((4, columns), generator=generator)
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn((rows, 4), generator=generator)
    save_file(tensors, folder / "line.safetensors")
    return folder / "line.safetensors"


@pytest.fixture(scope="module")
def catalogue(sd15: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "broken.safetensors").write_bytes(sd15.file.read_bytes()[:5000])
    entries = [
        '[[model]]\nname = "tiny"\nkind = "base"\nbase = "sd15"\npackage = "models/tiny"\n'
        'sizes = ["64x64"]\n',
        ENTRY.format("mine", "checkpoint", "sd15", sd15.file),
        ENTRY.format("skipping", "checkpoint", "sd15", sd15.file) + "clip_skip = 1\n",
        ENTRY.format("broken", "checkpoint", "sd15", "broken.safetensors"),
        ENTRY.format("line", "lora", "sd15", line_lora(sd15.model, folder)),
        ENTRY.format("cut", "lora", "sd15", "broken.safetensors"),
    ]
    file = folder / "models.toml"
    file.write_text("\n".join(entries))
    return file


@pytest.fixture(scope="module")
def detailer(catalogue: Path) -> Iterator[Detailer]:
    with Detailer(catalogue, device="cpu") as detailer:
        yield detailer


@pytest.fixture(scope="module")
def face(photo: Any) -> RGB:
    picture: RGB = photo("skimage_astronaut.png")[60:124, 190:254]
    return picture


@pytest.fixture(scope="module")
def sdxl_detailer(save: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detailer]:
    """A base, a refiner and an embedding of SDXL."""
    folder = tmp_path_factory.mktemp("xl")
    vectors = {"clip_l": torch.ones(2, 64), "clip_g": torch.ones(2, 128)}
    save_file(vectors, folder / "frizzle.safetensors")
    file = folder / "models.toml"
    file.write_text(
        ENTRY.format("xl", "base", "sdxl", save("sdxl").file)
        + ENTRY.format("fine", "refiner", "sdxl", save("refiner").file)
        + ENTRY.format("frizzle", "embedding", "sdxl", "frizzle.safetensors")
    )
    with Detailer(file, device="cpu") as detailer:
        yield detailer


def repaint(detailer: Detailer, face: RGB, **options: Any) -> RGB:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    fixed = {"mask_blur": 0, "steps": 2, "seed": 3, "cfg_scale": 2, "prompt": "a cat"}
    return detailer.inpaint(face, mask, **{**fixed, **options}).picture.rgb


def test_a_checkpoint_repaints_otherwise_than_the_base(detailer: Detailer, face: RGB) -> None:
    base, mine = repaint(detailer, face), repaint(detailer, face, checkpoint="mine")
    assert (base[20:40, 20:40] != mine[20:40, 20:40]).any()
    assert np.array_equal(base[:8], mine[:8])
    assert np.array_equal(repaint(detailer, face), base)


def test_a_checkpoint_may_skip_layers_of_its_text_encoder(detailer: Detailer, face: RGB) -> None:
    mine = repaint(detailer, face, checkpoint="mine", cfg_scale=20)
    assert not np.array_equal(mine, repaint(detailer, face, checkpoint="skipping", cfg_scale=20))


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_a_request_may_skip_layers_itself(detailer: Detailer, face: RGB, clip_skip: int) -> None:
    asked = repaint(detailer, face, checkpoint="mine", cfg_scale=20, clip_skip=clip_skip)
    own = repaint(detailer, face, checkpoint="skipping", cfg_scale=20)
    assert np.array_equal(asked, own) == (clip_skip == 1)


def test_a_refiner_and_an_embedding_show(sdxl_detailer: Detailer, face: RGB) -> None:
    wishes: list[dict[str, Any]] = [
        {},
        {"use_refiner": True},
        {"prompt": "a frizzle cat"},
        {"negative_prompt": "frizzle"},
        {"use_refiner": True, "strength": 0.2},
    ]
    pictures = [
        repaint(sdxl_detailer, face, **{"steps": 3, "strength": 1.0, **wish}) for wish in wishes
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(wishes)
    assert np.array_equal(repaint(sdxl_detailer, face, steps=3, strength=1.0), pictures[0])


def test_a_broken_checkpoint_leaves_the_others_served(detailer: Detailer, face: RGB) -> None:
    before = repaint(detailer, face)
    with pytest.raises(WeightsError, match="download it again"):
        repaint(detailer, face, checkpoint="broken")
    assert np.array_equal(repaint(detailer, face), before)


def test_loras_leave_no_trace(detailer: Detailer, face: RGB) -> None:
    plain = repaint(detailer, face, checkpoint="mine")
    pictures = [
        repaint(detailer, face, checkpoint="mine", loras={"octoai:line": weight})
        for weight in (None, 0.5, -1, 0, 1)
    ]
    assert len({picture.tobytes() for picture in [plain, *pictures]}) == 4
    assert np.array_equal(pictures[0], pictures[4])
    assert np.array_equal(pictures[3], plain)
    assert np.array_equal(repaint(detailer, face, checkpoint="mine"), plain)


@pytest.mark.parametrize("options", [{"loras": {"line": 1}}, {"loras": {"cut": 1}}])
def test_a_lora_that_does_not_fit_is_refused(
    detailer: Detailer, face: RGB, options: dict[str, Any]
) -> None:
    """The base is of another shape than the checkpoint that the LoRA is of."""
    before = repaint(detailer, face)
    with pytest.raises(InvalidInput, match="does not fit this model or is damaged") as caught:
        repaint(detailer, face, **options)
    assert (caught.value.code, caught.value.field) == ("adapter_incompatible", "loras")
    assert np.array_equal(repaint(detailer, face), before)


def test_with_little_memory_pictures_are_the_same(
    detailer: Detailer, catalogue: Path, face: RGB
) -> None:
    """They are smaller than a tile."""
    with Detailer(catalogue, device="cpu", memory="low") as low:
        assert np.array_equal(repaint(low, face), repaint(detailer, face))


def test_memory_is_high_or_low(catalogue: Path) -> None:
    with pytest.raises(InvalidInput, match="memory is 'high' or 'low', not 'little'"):
        Detailer(catalogue, device="cpu", memory="little")  # type: ignore[arg-type]


def test_a_path_is_no_name(detailer: Detailer, catalogue: Path, face: RGB) -> None:
    with pytest.raises(InvalidInput, match="unknown checkpoint"):
        repaint(detailer, face, checkpoint=str(catalogue.with_name("broken.safetensors")))
