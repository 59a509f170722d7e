"""Text for each kind of model against diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import (
    Embedded,
    Text,
    added_arguments,
    condition,
    encode_texts,
    prompt_windows,
)
from afterdetail.types import SizeConditioning

Make = Callable[[str], DiffusionModel]


def pipeline(model: DiffusionModel) -> Any:
    common = {"vae": model.vae, "unet": model.unet, "text_encoder": model.text_encoder}
    common |= {"tokenizer": model.tokenizer}
    scheduler = DDIMScheduler.from_config(dict(model.scheduler_config))
    if model.text_encoder_2 is None:
        return StableDiffusionPipeline(
            **common,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    second = {"text_encoder_2": model.text_encoder_2, "tokenizer_2": model.tokenizer_2}
    cls = StableDiffusionXLImg2ImgPipeline if model.is_refiner else StableDiffusionXLPipeline
    return cls(**common, **second, scheduler=scheduler)


@torch.inference_mode()
def encode(model: DiffusionModel, *prompts: str) -> list[Embedded]:
    return encode_skipping(model, *((prompt, 0) for prompt in prompts))


@torch.inference_mode()
def encode_skipping(model: DiffusionModel, *prompts: tuple[str, int]) -> list[Embedded]:
    texts = [Text(prompt_windows(model, prompt), skip) for prompt, skip in prompts]
    return encode_texts(model, texts)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "refiner"])
@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("prompt", ["", "a portrait of a cat, 4k"])
@torch.inference_mode()
def test_plain_text_is_encoded_as_the_pipelines_do(
    make: Make, kind: str, skip: int, prompt: str
) -> None:
    model = make(kind)
    found = encode_skipping(model, ("another", 0), (prompt, skip))[1]
    if kind == "sd15":  # diffusers looks for a level that transformers has taken out of the class
        object.__setattr__(model.text_encoder, "text_model", model.text_encoder)
    expected = pipeline(model).encode_prompt(
        prompt,
        device=model.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        clip_skip=skip or None,
    )
    assert torch.allclose(found.tokens, expected[0], atol=1e-5)
    if kind == "sd15":
        assert found.pooled is None
    else:
        assert found.pooled is not None
        assert torch.allclose(found.pooled, expected[2], atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_no_more_layers_are_skipped_than_there_are(make: Make, kind: str) -> None:
    first, most = encode_skipping(make(kind), ("a cat", 12), ("a cat", 1000))
    assert torch.equal(first.tokens, most.tokens)


def test_long_text_keeps_the_vector_of_its_first_window(make: Make) -> None:
    first, long = encode(make("sdxl"), "cat " * 75, "cat " * 75 + "dog")
    assert (first.tokens.shape[1], long.tokens.shape[1]) == (77, 154)
    assert first.pooled is not None and long.pooled is not None
    assert torch.allclose(long.pooled, first.pooled, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "refiner"])
@pytest.mark.parametrize(
    ("prompt", "plain", "weights"),
    [
        ("a (red:1.5) cat [dog]", "a red cat dog", {2: 1.5, 4: 1 / 1.1}),
        ("a (red:0) cat (dog:-1)", "a red cat dog", {2: 0, 4: -1}),
        ("cat " * 80 + "(dog:2) bird", "cat " * 80 + "dog bird", {77 + 6: 2}),
    ],
    ids=["up-and-down", "zero-and-negative", "second-window"],
)
def test_each_token_is_multiplied_by_its_weight_then_all_by_one_factor_to_the_mean(
    make: Make, kind: str, prompt: str, plain: str, weights: dict[int, float]
) -> None:
    """``weights`` are by the place of the token; begin, end and all other tokens weigh 1."""
    model = make(kind)
    if model.text_encoder:  # a network that was never trained ends in a mean of zero
        model.text_encoder.final_layer_norm.bias.copy_(torch.linspace(-0.1, 0.3, 64))
    unweighted, weighted = encode(model, plain, prompt)
    scaled = unweighted.tokens.clone()
    for place, weight in weights.items():
        scaled[:, place] *= weight
    factor = unweighted.tokens.mean() / scaled.mean()
    assert abs(factor - 1) > 1e-4
    assert torch.allclose(weighted.tokens, factor * scaled, rtol=1e-3, atol=1e-4)
    if kind == "sd15":
        assert weighted.pooled is None
    else:  # weights do not reach the vector
        assert weighted.pooled is not None and unweighted.pooled is not None
        assert torch.allclose(weighted.pooled, unweighted.pooled, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "guided", "numbers"),
    [
        ("sdxl", False, [[96, 64, 0, 0, 96, 64]]),
        ("sdxl", True, [[96, 64, 0, 0, 96, 64]] * 2),
        ("refiner", False, [[96, 64, 0, 0, 6]]),
        ("refiner", True, [[96, 64, 0, 0, 2.5], [96, 64, 0, 0, 6]]),
    ],
)
def test_sizes_and_scores(make: Make, kind: str, guided: bool, numbers: list[list[float]]) -> None:
    model = make(kind)
    texts = encode(model, *["bad", "good"][not guided :])
    told = condition(model, texts, 96, 64, blank_negative=False)
    arguments = added_arguments(told.added, torch.float32, refiner=model.is_refiner)
    assert torch.equal(arguments["time_ids"], torch.tensor(numbers, dtype=torch.float32))
    pooled = torch.cat([text.pooled for text in texts if text.pooled is not None])
    assert torch.equal(arguments["text_embeds"], pooled)


def test_sizes_of_the_pictures_past_come_first(make: Make) -> None:
    model = make("sdxl")
    told = condition(
        model,
        encode(model, "good"),
        96,
        64,
        blank_negative=False,
        told=SizeConditioning.parse("300x200+5+7"),
    )
    arguments = added_arguments(told.added, torch.float32, refiner=False)
    assert arguments["time_ids"].tolist() == [[200, 300, 7, 5, 96, 64]]


@pytest.mark.parametrize(("kind", "zeros"), [("sd15", False), ("sdxl", True), ("refiner", False)])
def test_no_negative_prompt_is_zeros_where_the_model_was_trained_so(
    make: Make, kind: str, zeros: bool
) -> None:
    model = make(kind)
    told = condition(model, encode(model, "", "a cat"), 64, 64, blank_negative=True)
    assert bool((told.tokens[0] == 0).all()) == zeros
    assert bool(told.tokens[1].any())
