"""The embedded SDXL, its refiner and the LoRAs: floors under what they do, and their layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from benchmarks.figures import Case, Figures, mean, measure
from benchmarks.quality import PLAIN, Setting, repaint
from PIL import Image
from safetensors.torch import load_file

import afterdetail
from afterdetail import Detailer
from afterdetail.options import Base
from afterdetail.types import RGB

MODELS = Path(afterdetail.__file__).parent / "models"
REFINED = replace(PLAIN, use_refiner=True)
LORAS = {Base.SD15: "tiny-tan", Base.SDXL: "tiny-xl-tan"}


@pytest.fixture(scope="module", params=[PLAIN, REFINED], ids=["base", "base and refiner"])
def after(request: pytest.FixtureRequest, cases: list[Case]) -> Figures:
    how: Setting = request.param
    with Detailer("tiny-xl", device="cpu") as alone:
        return mean([measure(case, repaint(alone, how, case)) for case in cases])


def test_base_and_refiner_are_no_larger_than_agreed() -> None:
    folders = [MODELS / "tiny-xl", MODELS / "tiny-xl-refiner"]
    sizes = [file.stat().st_size for folder in folders for file in folder.rglob("*.safetensors")]
    assert 0 < sum(sizes) <= 16_000_000


def test_repainted_faces_are_nearer_to_the_truth(cases: list[Case], after: Figures) -> None:
    before = mean([measure(case, case.soft) for case in cases])
    assert after.landmarks < 0.9 * before.landmarks
    assert after.features < 1.05 * before.features
    assert after.psnr > before.psnr - 0.8
    assert after.sharpness > 1.5 * before.sharpness
    assert after.meshed >= before.meshed
    assert after.ring < 0.6


def paint(detailer: Detailer, case: Case, base: Base, **options: Any) -> RGB:
    given: dict[str, Any] = {
        "inpainting_base_model": base,
        "steps": 4,
        "strength": 0.8,
        "seed": 3,
        **options,
    }
    return detailer.detail(case.soft, **given).picture.rgb


def test_each_base_paints_the_same_face_with_the_same_seed_and_another_than_the_other(
    embedded: Detailer, cases: list[Case]
) -> None:
    first, again, other = (
        paint(embedded, cases[0], base) for base in (Base.SDXL, Base.SDXL, Base.SD15)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("base", LORAS)
def test_a_lora_acts_by_its_weight_and_not_at_all_at_zero(
    embedded: Detailer, cases: list[Case], base: Base
) -> None:
    plain = paint(embedded, cases[0], base).astype(int)
    moved = [
        np.abs(paint(embedded, cases[0], base, loras={LORAS[base]: weight}) - plain).mean()
        for weight in (0.0, 0.5, 1.0)
    ]
    assert moved[0] == 0 < moved[1] < moved[2]


def test_sizes_that_it_is_told_reach_tiny_xl_alone(embedded: Detailer, cases: list[Case]) -> None:
    def told(base: Base, size: str | None) -> RGB:
        return paint(embedded, cases[0], base, size_conditioning=size)

    assert np.array_equal(told(Base.SDXL, None), told(Base.SDXL, "128x128"))
    assert not np.array_equal(told(Base.SDXL, None), told(Base.SDXL, "32x32+8+0"))
    assert np.array_equal(told(Base.SD15, None), told(Base.SD15, "32x32+8+0"))


@pytest.mark.parametrize("name", LORAS.values())
def test_diffusers_reads_the_lora(name: str) -> None:
    folder = MODELS / name.removesuffix("-tan")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    unet.load_lora_adapter(load_file(MODELS / f"{name}.safetensors"), prefix="unet")
    layers = [name for name, _ in unet.named_parameters() if "lora_A" in name]
    assert 2 * len(layers) == len(load_file(MODELS / f"{name}.safetensors"))


@pytest.mark.parametrize(
    ("folder", "pipeline", "numbers"),
    [
        ("tiny-xl", diffusers.StableDiffusionXLInpaintPipeline, 6),
        ("tiny-xl-refiner", diffusers.StableDiffusionXLImg2ImgPipeline, 5),
    ],
)
def test_diffusers_own_pipelines_run_them(
    cases: list[Case], folder: str, pipeline: type[diffusers.DiffusionPipeline], numbers: int
) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(MODELS / "tiny-xl" / "vae")
    pipe = pipeline.from_pretrained(MODELS / folder, vae=vae, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    face = Image.fromarray(cases[0].soft).resize((128, 128))
    mask = {"mask_image": Image.new("L", face.size, 255), "height": 128, "width": 128}
    made = pipe(
        "smiling",
        image=face,
        strength=0.5,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(0),
        **(mask if numbers == 6 else {}),
    ).images[0]
    assert made.size == (128, 128)
    assert np.abs(np.asarray(made).astype(int) - np.asarray(face)).mean() < 40
    config = json.loads((MODELS / folder / "unet" / "config.json").read_text("utf-8"))
    width = config["projection_class_embeddings_input_dim"]
    assert width - numbers * config["addition_time_embed_dim"] == 64  # the whole text's vector
