"""The nodes. Pictures are ComfyUI's: float32 tensors ``(B, H, W, 3)``, 0..1."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw

from . import client  # noqa: TID252

DETECTORS = (
    "face_full_mediapipe",
    "face_short_mediapipe",
    "face_mesh_mediapipe",
    "eyes_mesh_mediapipe",
    "hand_mediapipe",
    "face_yolov8n",
    "face_yolov8s",
    "hand_yolov8n",
    "person_yolov8n-seg",
)
SAMPLERS = (
    "DDIM",
    "K_EULER",
    "K_EULER_ANCESTRAL",
    "DPM_PLUS_PLUS_2M_KARRAS",
    "DPM_PLUS_PLUS_2M_SDE_KARRAS",
    "DPM_PLUS_PLUS_SDE_KARRAS",
    "UNI_PC",
    "HEUN",
    "LCM",
)
ORDERS = ("confidence", "left_to_right", "center_to_edge", "area")
MAX_SEED = 2**32 - 1
CATEGORY = "image/afterdetail"

Inputs = dict[str, dict[str, Any]]


def _finding() -> dict[str, Any]:
    return {
        "detector": (list(DETECTORS),),
        "confidence": ("FLOAT", {"default": 0.3, "min": 0.0, "max": 1.0, "step": 0.01}),
        "mask_dilation": ("INT", {"default": 4, "min": -512, "max": 512}),
        "mask_blur": ("INT", {"default": 4, "min": 0, "max": 512}),
    }


def _painting() -> dict[str, Any]:
    return {
        "strength": ("FLOAT", {"default": 0.4, "min": 0.01, "max": 1.0, "step": 0.01}),
        "steps": ("INT", {"default": 20, "min": 1, "max": 200}),
        "cfg_scale": ("FLOAT", {"default": 7.5, "min": 0.1, "max": 50.0, "step": 0.1}),
        "sampler": (list(SAMPLERS),),
        "mask_padding": ("INT", {"default": 32, "min": 0, "max": 4096}),
        "order": (list(ORDERS),),
        "soft_inpainting": ("BOOLEAN", {"default": False}),
    }


def _text(**more: Any) -> tuple[str, dict[str, Any]]:
    return "STRING", {"default": "", **more}


class AfterDetailStage:
    """One more turn of finding and repainting, behind those of ``stages``."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "stage"
    RETURN_TYPES: ClassVar = ("AFTERDETAIL_STAGES",)
    RETURN_NAMES: ClassVar = ("stages",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 (ComfyUI's name)
        return {
            "required": {**_finding(), **_painting()},
            "optional": {
                "prompt": _text(multiline=True),
                "negative_prompt": _text(multiline=True),
                "stages": ("AFTERDETAIL_STAGES",),
            },
        }

    def stage(
        self,
        prompt: str = "",
        negative_prompt: str = "",
        stages: tuple[dict[str, Any], ...] = (),
        **options: Any,
    ) -> tuple[tuple[dict[str, Any], ...]]:
        own = {"prompt": prompt, "negative_prompt": negative_prompt}
        mine = {**options, **{name: text for name, text in own.items() if text}}
        return ((*stages, mine),)


class AfterDetail:
    """Finds the objects of pictures, repaints each, and puts them back.

    With ``stages`` the options of finding and painting are theirs, and the prompts here are those
    of the whole picture, which ``[PROMPT]`` stands for.
    """

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "detail"
    RETURN_TYPES: ClassVar = ("IMAGE", "STRING")
    RETURN_NAMES: ClassVar = ("image", "report")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {
            "required": {
                "image": ("IMAGE",),
                "prompt": _text(multiline=True),
                "negative_prompt": _text(multiline=True),
                "seed": ("INT", {"default": 1, "min": 1, "max": MAX_SEED}),
                **_finding(),
                **_painting(),
            },
            "optional": {
                "checkpoint": _text(),
                "stages": ("AFTERDETAIL_STAGES",),
                "server": _text(placeholder=client.SERVER),
            },
        }

    def detail(
        self,
        image: torch.Tensor,
        seed: int,
        checkpoint: str = "",
        stages: tuple[dict[str, Any], ...] = (),
        server: str = "",
        **options: Any,
    ) -> tuple[torch.Tensor, str]:
        body: dict[str, Any] = dict(options)
        if checkpoint:
            body["checkpoint"] = checkpoint
        if stages:
            body["stages"] = list(stages)
        progress = Progress(len(image))
        pictures, reports = [], []
        for index, picture in enumerate(image):
            own_seed = (seed - 1 + index) % MAX_SEED + 1
            asked = {**body, "seed": own_seed, "init_image": to_base64(picture)}
            answer = client.detail(server, asked, progress.listen)
            progress.next()
            encoded = answer.pop("image_b64")
            # Without one, the server's safety checker refused all that was painted.
            pictures.append(to_tensor(encoded) if encoded else picture)
            reports.append(answer)
        return torch.stack(pictures), json.dumps(reports)


class AfterDetailDetect:
    """What would be repainted: a mask of all objects, a picture with them drawn, and a report."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "detect"
    RETURN_TYPES: ClassVar = ("MASK", "IMAGE", "STRING")
    RETURN_NAMES: ClassVar = ("mask", "preview", "report")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {
            "required": {"image": ("IMAGE",), **_finding()},
            "optional": {"server": _text(placeholder=client.SERVER)},
        }

    def detect(
        self, image: torch.Tensor, server: str = "", **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        masks, previews, reports = [], [], []
        for picture in image:
            asked = {**options, "init_image": to_base64(picture), "preview": True}
            answer = client.detect(server, asked)
            previews.append(to_tensor(answer.pop("preview_b64")))
            masks.append(to_mask(answer))
            reports.append(answer)
        return torch.stack(masks), torch.stack(previews), json.dumps(reports)


class Progress:
    """Moves ComfyUI's bar on, and ends the work where the user has."""

    PARTS = 1000
    """Of a picture."""

    def __init__(self, pictures: int) -> None:
        self.done = 0
        try:
            from comfy.model_management import (  # type: ignore[import-not-found]
                throw_exception_if_processing_interrupted,
            )
            from comfy.utils import ProgressBar  # type: ignore[import-not-found]
        except ImportError:  # tried without ComfyUI
            self.bar = None
            return
        self.bar = ProgressBar(pictures * self.PARTS)
        self.check = throw_exception_if_processing_interrupted

    def listen(self, name: str, data: Mapping[str, Any]) -> None:
        if self.bar is None:
            return
        self.check()
        if name == "step":
            here = self.PARTS * data["step"] // max(1, data["steps"])
            self.bar.update_absolute(self.done + here)

    def next(self) -> None:
        self.done += self.PARTS
        if self.bar is not None:
            self.bar.update_absolute(self.done)


def to_base64(picture: torch.Tensor) -> str:
    """A picture ``(H, W, 3 or 4)`` as a PNG."""
    pixels = (picture.cpu().numpy() * 255.0).round().clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def to_tensor(encoded: str) -> torch.Tensor:
    """A picture file as float32 ``(H, W, 3)``."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255.0)


def to_mask(answer: Mapping[str, Any]) -> torch.Tensor:
    """All outlines of an answer filled with 1, float32 ``(H, W)``."""
    image = Image.new("L", (answer["width"], answer["height"]))
    pen = ImageDraw.Draw(image)
    for item in answer["objects"]:
        if item["outcome"] != "planned":
            continue
        x0, y0, x1, y1 = item["box"]
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        for part in item["polygons"] or [corners]:
            pen.polygon([tuple(point) for point in part], fill=255)
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255.0)
