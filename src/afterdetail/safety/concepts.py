"""Stable Diffusion's own safety checker, for whoever has its weights.

It compares the picture's CLIP embedding with those of seventeen concepts, each with a threshold in
the weights file (Rando et al. 2022, "Red-Teaming the Stable Diffusion Safety Filter", describe it).
1.2 GB in memory and one to two seconds of one core for a crop: the model is CLIP ViT-L/14.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from afterdetail.errors import ModelUnavailable
from afterdetail.types import RGB

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures (Radford et al. 2021)."""
SPECIAL_CARE = 0.01
"""Added to every concept's score where one of the three that ask for special care is seen."""
REFUSED = 0.001
"""The least score above 0: scores are rounded to three digits."""


class ConceptChecker:
    """The checker in a folder as diffusers writes it: ``config.json``, ``model.safetensors``.

    Args:
        adjustment: added to every score; above 0 it refuses more.

    Raises:
        ModelUnavailable: the folder does not have it.
    """

    def __init__(self, folder: Path, adjustment: float = 0.0) -> None:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        try:
            model = StableDiffusionSafetyChecker.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError):
            raise ModelUnavailable(
                f"AFTERDETAIL_SAFETY_FOLDER {folder} has no Stable Diffusion safety checker: it "
                "needs config.json and model.safetensors, the folder safety_checker of an SD 1.5 "
                "repository",
                public="the safety checker is not available",
            ) from None
        self._model = model.eval().float()
        self._adjustment = adjustment
        self._turn = threading.Lock()

    @torch.inference_mode()
    def score(self, rgb: RGB) -> float:
        """By how much the nearest concept is beyond its threshold, in cosines; refused above 0."""
        model = self._model
        with self._turn:  # one core at a time, however many requests there are
            seen = model.visual_projection(model.vision_model(to_clip(rgb))[1])
        special = _beyond(seen, model.special_care_embeds, model.special_care_embeds_weights)
        concepts = _beyond(seen, model.concept_embeds, model.concept_embeds_weights)
        care = SPECIAL_CARE if round(special + self._adjustment, 3) > 0 else 0.0
        return round(concepts + self._adjustment + care, 3)


def _beyond(seen: torch.Tensor, embeds: torch.Tensor, thresholds: torch.Tensor) -> float:
    return float((torch.cosine_similarity(seen, embeds) - thresholds).max())


def to_clip(rgb: RGB) -> torch.Tensor:
    """A picture as CLIP takes it, ``(1, 3, 224, 224)``: its middle square, shorter side to 224."""
    height, width = rgb.shape[:2]
    scale = SIDE / min(height, width)
    size = (max(SIDE, int(width * scale)), max(SIDE, int(height * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    top, left = (size[1] - SIDE) // 2, (size[0] - SIDE) // 2
    square = small[top : top + SIDE, left : left + SIDE].astype(np.float32) / 255
    normal = (square - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)[None]
