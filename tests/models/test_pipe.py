"""Somebody else's diffusers pipeline: its networks, our way, the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

import afterdetail
from afterdetail import Detailer
from afterdetail.errors import InvalidInput
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.pipe import catalogue_of, model_of
from afterdetail.options import Base

TINY = Path(afterdetail.__file__).parent / "models" / "tiny"
QUICK: dict[str, Any] = {"steps": 3, "strength": 0.6, "seed": 7, "prompt": "a (smiling:1.2) woman"}


def load_pipe() -> Any:
    return StableDiffusionPipeline.from_pretrained(TINY, local_files_only=True).to(torch.float32)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipe()


@pytest.fixture(scope="module")
def from_pipe(pipe: Any) -> Iterator[Detailer]:
    with Detailer.from_pipe(pipe) as detailer:
        yield detailer


def test_the_pixels_are_those_of_the_folder(from_pipe: Detailer, photos: Path) -> None:
    photo = photos / "skimage_astronaut.png"
    with Detailer("tiny", device="cpu") as from_folder:
        expected = from_folder.detail(photo, **QUICK)
    result = from_pipe.detail(photo, **QUICK)
    assert result.num_objects_inpainted == 1
    np.testing.assert_array_equal(result.picture.rgb, expected.picture.rgb)


def test_nothing_is_copied_or_changed(pipe: Any, from_pipe: Detailer, photos: Path) -> None:
    model = model_of(pipe)
    assert model.unet is pipe.unet
    assert model.vae is pipe.vae
    assert model.text_encoder is pipe.text_encoder
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    scheduler = dict(pipe.scheduler.config)
    from_pipe.detail(photos / "skimage_astronaut.png", **QUICK, sampler="K_EULER")
    for name, tensor in pipe.unet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert dict(pipe.scheduler.config) == scheduler
    assert pipe.unet.dtype == torch.float32


def test_the_model_is_what_the_pipe_is(pipe: Any, from_pipe: Detailer) -> None:
    assert from_pipe.device == torch.device("cpu")
    (spec,) = from_pipe.catalogue.bases().values()
    assert (spec.base, spec.sizes) == (Base.SD15, ((128, 128),))
    assert catalogue_of(model_of(pipe), [(64, 96)]).models[0].sizes == ((64, 96),)


def test_sdxl_has_two_text_encoders(make: Any, photos: Path) -> None:
    """A pipe of an SDXL's parts paints as the same parts in a model of ours."""
    model: DiffusionModel = make("sdxl")
    pipe = StableDiffusionXLPipeline(
        vae=model.vae,
        unet=model.unet,
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        tokenizer=model.tokenizer,
        tokenizer_2=model.tokenizer_2,
        scheduler=EulerDiscreteScheduler.from_config(dict(model.scheduler_config)),
        add_watermarker=False,
    )
    same = model_of(pipe)
    assert same.base is Base.SDXL
    assert same.networks == model.networks
    assert same.tokenizer_2 is model.tokenizer_2
    with Detailer.from_pipe(pipe, sizes=[(64, 64)]) as detailer:
        result = detailer.detail(photos / "skimage_astronaut.png", **QUICK)
    assert result.num_objects_inpainted == 1


def without(pipe: Any) -> None:
    pipe.text_encoder = None


def half(pipe: Any) -> None:
    pipe.vae.half()


def training(pipe: Any) -> None:
    pipe.unet.train()


def offloaded(pipe: Any) -> None:
    pipe.unet._hf_hook = object()


def elsewhere(pipe: Any) -> None:
    pipe.vae.to("meta")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without, "no pipeline of Stable Diffusion"),
        (half, "vae is torch.float16"),
        (training, "eval"),
        (offloaded, "offload"),
        (elsewhere, "vae is on meta"),
    ],
)
def test_a_pipe_that_cannot_be_used_is_refused(spoil: Any, told: str) -> None:
    spoilt = load_pipe()
    spoil(spoilt)
    with pytest.raises(InvalidInput, match=told) as caught:
        Detailer.from_pipe(spoilt)
    assert caught.value.code == "pipe_unfit"


@pytest.mark.parametrize("thing", [None, "sd15", object()])
def test_what_is_no_pipe_is_refused(thing: object) -> None:
    with pytest.raises(InvalidInput, match="no pipeline"):
        Detailer.from_pipe(thing)
