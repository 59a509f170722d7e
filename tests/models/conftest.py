"""Small networks of the true layouts, with random weights, files of them, a hub, held-out faces."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from benchmarks.figures import Case
from benchmarks.quality import find_cases
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from training.portraits import Portrait, read_portraits
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from afterdetail import Detailer
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.single_file import SCHEDULE
from afterdetail.models.tokenizer import PAD_OF_OPEN_CLIP, clip_tokenizer
from afterdetail.options import Base

if TYPE_CHECKING:
    from tests.models.hub import Hub, Machine

HUB = runpy.run_path(str(Path(__file__).with_name("hub.py")))
LAYOUT = runpy.run_path(str(Path(__file__).with_name("original_layout.py")))
PORTRAITS = Path(__file__).parents[1] / "data" / "portraits"
WORDS = 49408
CPU = torch.device("cpu")

torch.set_num_threads(1)


def unet(**config: Any) -> UNet2DConditionModel:
    """Widths apart, the networks of SD 1.x: four levels of which three attend to the text."""
    torch.manual_seed(1)
    attends = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    usual = {
        "block_out_channels": (32, 32, 64, 64),
        "down_block_types": attends,
        "up_block_types": [name.replace("Down", "Up") for name in attends[::-1]],
        "attention_head_dim": 8,
        "cross_attention_dim": 64,
    }
    return UNet2DConditionModel(**{**usual, **config}).eval().requires_grad_(False)


def sdxl_unet(**config: Any) -> UNet2DConditionModel:
    """Three levels of which two attend, the last with more blocks; linear projections."""
    usual = {
        "block_out_channels": (64, 64, 128),
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 1, 2],
        "attention_head_dim": [1, 1, 2],
        "cross_attention_dim": 64 + 128,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 96 + 6 * 16,
    }
    return unet(**{**usual, **config})


def vae(scaling_factor: float) -> AutoencoderKL:
    torch.manual_seed(2)
    network = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=2,
        scaling_factor=scaling_factor,
    )
    return network.eval().requires_grad_(False)


def text_config(width: int, **config: Any) -> CLIPTextConfig:
    usual = {
        "vocab_size": WORDS,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": max(1, width // 64),
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "projection_dim": width,
    }
    return CLIPTextConfig(**{**usual, **config})


def clip() -> CLIPTextModel:
    torch.manual_seed(3)
    return CLIPTextModel(text_config(64)).eval().requires_grad_(False)


def open_clip() -> CLIPTextModelWithProjection:
    torch.manual_seed(4)
    config = text_config(128, hidden_act="gelu", projection_dim=96)
    return CLIPTextModelWithProjection(config).eval().requires_grad_(False)


def sd15_model(in_channels: int = 4) -> DiffusionModel:
    return DiffusionModel(
        name="small",
        base=Base.SD15,
        unet=unet(in_channels=in_channels),
        vae=vae(0.18215),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        scheduler_config=SCHEDULE,
        device=CPU,
        dtype=torch.float32,
    )


def sdxl_model(in_channels: int = 4) -> DiffusionModel:
    return DiffusionModel(
        name="small-xl",
        base=Base.SDXL,
        unet=sdxl_unet(in_channels=in_channels),
        vae=vae(0.13025),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=open_clip(),
        tokenizer_2=clip_tokenizer(PAD_OF_OPEN_CLIP),
        scheduler_config=SCHEDULE,
        device=CPU,
        dtype=torch.float32,
    )


def refiner_model() -> DiffusionModel:
    network = sdxl_unet(
        block_out_channels=(64, 64, 128, 128),
        down_block_types=["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
        up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        transformer_layers_per_block=[1, 2, 2, 2],
        attention_head_dim=[1, 1, 2, 2],
        cross_attention_dim=128,
        projection_class_embeddings_input_dim=96 + 5 * 16,
    )
    return DiffusionModel(
        name="small-refiner",
        base=Base.SDXL,
        unet=network,
        vae=vae(0.13025),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=open_clip(),
        tokenizer_2=clip_tokenizer(PAD_OF_OPEN_CLIP),
        scheduler_config=SCHEDULE,
        device=CPU,
        dtype=torch.float32,
    )


def original(model: DiffusionModel) -> Any:
    """All tensors of a model by the names that Civitai's files have."""
    tensors = {**LAYOUT["original_unet"](model.unet), **LAYOUT["original_vae"](model.vae)}
    first, second = "conditioner.embedders.0.", "conditioner.embedders.1."
    if model.base is Base.SD15:
        return tensors | LAYOUT["original_clip"](
            model.text_encoder, "cond_stage_model.transformer."
        )
    if model.text_encoder is None:
        return tensors | LAYOUT["original_open_clip"](model.text_encoder_2, f"{first}model.")
    tensors |= LAYOUT["original_clip"](model.text_encoder, f"{first}transformer.")
    return tensors | LAYOUT["original_open_clip"](model.text_encoder_2, f"{second}model.")


@dataclass(frozen=True, eq=False)
class Saved:
    """A model and the single file it was saved in."""

    model: DiffusionModel
    file: Path


MODELS = {
    "sd15": sd15_model,
    "sd15-inpainting": lambda: sd15_model(9),
    "sdxl": sdxl_model,
    "sdxl-inpainting": lambda: sdxl_model(9),
    "refiner": refiner_model,
}


@pytest.fixture(scope="session", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Each kind of checkpoint in turn."""
    return _save(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``save("sd15")``: a model and its file."""
    return lambda name: _save(name, tmp_path_factory)


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return _save("sd15", tmp_path_factory)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return _save("sdxl", tmp_path_factory)


def _save(name: str, folders: pytest.TempPathFactory) -> Saved:
    model = MODELS[name]()
    file = folders.mktemp("checkpoints") / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in original(model).items()}, file)
    return Saved(model, file)


@pytest.fixture(scope="session")
def make() -> Any:
    """``make("sd15")``: a new model each time, always the same."""
    return lambda name: MODELS[name]()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with HUB["serving"]() as hub:
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    machine: Machine = HUB["Machine"](tmp_path, hub)
    return machine


@pytest.fixture(scope="session")
def portraits() -> list[Portrait]:
    """Heads that the embedded models have not seen."""
    return read_portraits(PORTRAITS)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Detailer]:
    """The embedded models."""
    with Detailer("tiny", device="cpu") as detailer:
        yield detailer


@pytest.fixture(scope="session")
def cases(portraits: list[Portrait], embedded: Detailer) -> list[Case]:
    """Those heads, degraded, with the face that is found in each."""
    cases, missed = find_cases(portraits, embedded, len(portraits))
    assert missed == 0
    return cases
