"""The arguments of AUTOMATIC1111's ``img2img`` and of the ADetailer extension, as they are written.

Names, defaults and, where ours are not narrower, ranges are theirs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from afterdetail.options import MAX_EXTENT, MAX_SEED, Prompt

UNSET = (None, "", "None", "Automatic", "Use same checkpoint", "Use same VAE", "Use same sampler")
"""How the web UI and its clients write that nothing was chosen."""


def _unset(value: Any) -> Any:
    return None if value in UNSET else value


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str | None, BeforeValidator(_unset)]


class AdetailerArgs(BaseModel):
    """One tab of the extension."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ad_model: str = "None"
    ad_model_classes: str = ""
    ad_tab_enable: bool = True
    ad_tap_enable: bool = True  # how the extension itself once wrote it
    ad_prompt: Prompt = ""
    ad_negative_prompt: Prompt = ""
    ad_confidence: Share = 0.3
    ad_mask_k_largest: Annotated[int, Field(ge=0)] = 0
    ad_mask_filter_method: Literal["Area", "Confidence"] = "Area"
    ad_mask_k: Annotated[int, Field(ge=0)] = 0
    ad_mask_min_ratio: Share = 0.0
    ad_mask_max_ratio: Share = 1.0
    ad_dilate_erode: Annotated[int, Field(ge=-MAX_EXTENT, le=MAX_EXTENT)] = 4
    ad_x_offset: Annotated[int, Field(ge=-MAX_EXTENT, le=MAX_EXTENT)] = 0
    ad_y_offset: Annotated[int, Field(ge=-MAX_EXTENT, le=MAX_EXTENT)] = 0
    ad_mask_merge_invert: Literal["None", "Merge", "Merge and Invert"] = "None"
    ad_mask_blur: Annotated[int, Field(ge=0, le=MAX_EXTENT)] = 4
    ad_denoising_strength: Share = 0.4
    ad_inpaint_only_masked: bool = True
    ad_inpaint_only_masked_padding: Annotated[int, Field(ge=0, le=MAX_EXTENT)] = 32
    ad_use_inpaint_width_height: bool = False
    ad_inpaint_width: Annotated[int, Field(ge=1, le=MAX_EXTENT)] = 512
    ad_inpaint_height: Annotated[int, Field(ge=1, le=MAX_EXTENT)] = 512
    ad_use_steps: bool = False
    ad_steps: Annotated[int, Field(ge=1, le=200)] = 28
    ad_use_cfg_scale: bool = False
    ad_cfg_scale: Annotated[float, Field(gt=0, le=50)] = 7.0
    ad_use_checkpoint: bool = False
    ad_checkpoint: Name = None
    ad_use_vae: bool = False
    ad_vae: Name = None
    ad_use_sampler: bool = False
    ad_sampler: str = "DPM++ 2M Karras"
    ad_scheduler: str = "Use same scheduler"
    ad_use_noise_multiplier: bool = False
    ad_noise_multiplier: float = 1.0
    ad_use_clip_skip: bool = False
    ad_clip_skip: Annotated[int, Field(ge=1, le=11)] = 1
    ad_restore_face: bool = False
    ad_controlnet_model: Name = None
    ad_controlnet_module: Name = None
    ad_controlnet_weight: float = 1.0
    ad_controlnet_guidance_start: float = 0.0
    ad_controlnet_guidance_end: float = 1.0
    is_api: Any = True

    @property
    def active(self) -> bool:
        return self.ad_model != "None" and self.ad_tab_enable and self.ad_tap_enable

    def unserved(self) -> dict[str, bool]:
        """What has no counterpart here, and whether it is asked for."""
        return {
            "ad_model_classes": bool(self.ad_model_classes.strip()),
            "ad_vae": self.ad_use_vae and self.ad_vae is not None,
            "ad_noise_multiplier": self.ad_use_noise_multiplier and self.ad_noise_multiplier != 1,
            "ad_restore_face": self.ad_restore_face,
            "ad_controlnet_model": self.ad_controlnet_model not in (None, "Passthrough"),
            "ad_mask_k": self.ad_mask_k > 0 and self.ad_mask_k_largest > 0,
        }


class Img2ImgRequest(BaseModel):
    """The fields of ``POST /sdapi/v1/img2img`` that mean something here; others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    init_images: Annotated[list[str], Field(min_length=1, max_length=1)]
    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    denoising_strength: Share = 0.75
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] = -1
    sampler_name: str | None = None
    sampler_index: str | None = "Euler"
    scheduler: str | None = None
    steps: Annotated[int, Field(ge=1, le=200)] = 50
    cfg_scale: Annotated[float, Field(gt=0, le=50)] = 7.0
    width: Annotated[int, Field(ge=1, le=MAX_EXTENT)] | None = None
    height: Annotated[int, Field(ge=1, le=MAX_EXTENT)] | None = None
    resize_mode: int = 0
    batch_size: int = 1
    n_iter: int = 1
    subseed_strength: float = 0
    mask: str | None = None
    tiling: bool | None = None
    restore_faces: bool | None = None
    initial_noise_multiplier: float | None = None
    refiner_checkpoint: str | None = None
    script_name: str | None = None
    styles: list[str] | None = None
    send_images: bool = True
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None

    def unserved(self) -> dict[str, bool]:
        """What has no counterpart here, and whether it is asked for."""
        return {
            "batch_size": self.batch_size != 1,
            "n_iter": self.n_iter != 1,
            "mask": self.mask is not None,
            "subseed_strength": self.subseed_strength != 0,
            "tiling": bool(self.tiling),
            "restore_faces": bool(self.restore_faces),
            "initial_noise_multiplier": self.initial_noise_multiplier not in (None, 1.0),
            "refiner_checkpoint": self.refiner_checkpoint not in UNSET,
            "script_name": self.script_name not in UNSET,
            "styles": bool(self.styles),
        }


class OverrideSettings(BaseModel):
    """The settings that a request may override and that mean something here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sd_model_checkpoint: Name = None
    CLIP_stop_at_last_layers: Annotated[int, Field(ge=1, le=11)] | None = None
    ad_bbox_sortby: Literal[
        "None",
        "Position (left to right)",
        "Position (center to edge)",
        "Area (large to small)",
    ] = "None"
    ad_same_seed_for_each_tap: bool = False
