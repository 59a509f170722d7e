"""Checkpoints in the original layout, and files that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Kind
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.entries import Prediction
from afterdetail.models.header import read_header
from afterdetail.models.single_file import SCHEDULE, ZERO_SNR, load_single_file
from afterdetail.options import Base

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
Change = Callable[[dict[str, Any]], dict[str, Any]]


def load(file: Path, base: Base = Base.SD15) -> DiffusionModel:
    return load_single_file("mine", base, file, torch.device("cpu"), torch.float32)


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def loaded(saved: Any) -> DiffusionModel:
    return load(saved.file, saved.model.base)


def test_every_network_comes_back_bit_for_bit(saved: Any, loaded: DiffusionModel) -> None:
    for part in NETWORKS:
        before, after = getattr(saved.model, part), getattr(loaded, part)
        assert (before is None) == (after is None), part
        assert before is None or same(before, after), part


@pytest.mark.parametrize(
    "key",
    [
        "in_channels",
        "attention_head_dim",
        "cross_attention_dim",
        "use_linear_projection",
        "addition_time_embed_dim",
    ],
)
def test_the_unet_is_of_the_same_configuration(
    saved: Any, loaded: DiffusionModel, key: str
) -> None:
    assert loaded.unet.config[key] == saved.model.unet.config[key]


def test_the_text_encoders_compute_the_same(saved: Any, loaded: DiffusionModel) -> None:
    ids = torch.tensor([[49406, 320, 1125, *[49407] * 74]])
    for part in ("text_encoder", "text_encoder_2"):
        before, after = getattr(saved.model, part), getattr(loaded, part)
        if before is not None:
            assert torch.equal(before(ids)[0], after(ids)[0])


def test_the_weights_do_not_hang_on_the_file(sd15: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(sd15.file.read_bytes())
    loaded = load(file)
    file.write_bytes(b"")
    assert same(loaded.unet, sd15.model.unet)


def test_half_precision_is_widened(sd15: Any, tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(sd15.file).items()}, file)
    weight = load(file).unet.conv_in.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, sd15.model.unet.conv_in.weight.half().float())


def plus(**extra: torch.Tensor) -> Change:
    return lambda tensors: {**tensors, **{name.replace("__", "."): t for name, t in extra.items()}}


def without(prefix: str) -> Change:
    return lambda tensors: {n: t for n, t in tensors.items() if not n.startswith(prefix)}


def renamed(old: str, new: str) -> Change:
    return lambda tensors: {n.replace(old, new): t for n, t in tensors.items()}


POSITIONS = torch.arange(77)[None]
LEFT_BY_TRAINING: dict[str, tuple[str, Change]] = {
    "averages": (
        "sd15",
        plus(
            model_ema__decay=torch.tensor(0.9),
            model_ema__diffusion_modelinput_blocks00weight=torch.ones(3),
        ),
    ),
    "a schedule": ("sd15", plus(betas=torch.ones(9), alphas_cumprod=torch.ones(9))),
    "positions": (
        "sd15",
        plus(cond_stage_model__transformer__text_model__embeddings__position_ids=POSITIONS),
    ),
    "positions cast to half": (
        "sd15",
        plus(cond_stage_model__transformer__text_model__embeddings__position_ids=POSITIONS.half()),
    ),
    "a projection": (
        "sd15",
        plus(cond_stage_model__transformer__text_projection__weight=torch.ones(4, 4)),
    ),
    "a loss": ("sd15", plus(first_stage_model__loss__logvar=torch.ones(1))),
    "no level text_model": ("sd15", renamed("transformer.text_model.", "transformer.")),
    "scales and sigmas": (
        "sdxl",
        plus(
            denoiser__sigmas=torch.ones(9),
            conditioner__embedders__1__model__logit_scale=torch.tensor(4.6),
        ),
    ),
}


@pytest.mark.parametrize("kind", LEFT_BY_TRAINING)
def test_what_trainers_and_mergers_leave_in_files_does_not_matter(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    name, change = LEFT_BY_TRAINING[kind]
    saved = request.getfixturevalue(name)
    file = tmp_path / "left.safetensors"
    save_file(change(load_file(saved.file)), file)
    loaded = load(file, saved.model.base)
    for part, network in saved.model.networks.items():
        assert same(network, loaded.networks[part]), part


def test_a_file_may_mix_precisions(sd15: Any, tmp_path: Path) -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn)
    tensors = load_file(sd15.file)
    mixed = {name: t.to(kinds[number % 4]) for number, (name, t) in enumerate(tensors.items())}
    file = tmp_path / "mixed.safetensors"
    save_file(mixed, file)
    expected = mixed["model.diffusion_model.input_blocks.0.0.weight"].float()
    network = load(file).unet
    assert torch.equal(network.conv_in.weight, expected)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_a_file_without_an_autoencoder_is_read_with_another(sd15: Any, tmp_path: Path) -> None:
    file = tmp_path / "pruned.safetensors"
    save_file(without("first_stage_model.")(load_file(sd15.file)), file)
    with pytest.raises(WeightsError, match=r"no autoencoder .* names one as its vae"):
        load(file)
    vae = sd15.model.vae
    loaded = load_single_file("mine", Base.SD15, file, torch.device("cpu"), torch.float32, vae)
    assert loaded.vae is vae
    assert same(loaded.unet, sd15.model.unet)


VELOCITY = {"prediction_type": "v_prediction"}
V_PRED, ZTSNR = {"v_pred": torch.zeros(0)}, {"ztsnr": torch.zeros(0)}
"""How trainers mark their files."""


@pytest.mark.parametrize(
    ("marks", "metadata", "known", "changes"),
    [
        ({}, {}, None, {}),
        ({}, {"modelspec.prediction_type": "v"}, None, VELOCITY),
        (ZTSNR, {"modelspec.prediction_type": "v"}, None, {**VELOCITY, **ZERO_SNR}),
        (V_PRED, {}, None, VELOCITY),
        (ZTSNR, {}, None, {}),
        (ZTSNR, {}, Prediction.VELOCITY, {**VELOCITY, **ZERO_SNR}),
        ({}, {"modelspec.prediction_type": "v"}, Prediction.EPSILON, {}),
    ],
)
def test_the_schedule_is_the_one_trained_with(
    sd15: Any,
    tmp_path: Path,
    marks: dict[str, torch.Tensor],
    metadata: dict[str, str],
    known: Prediction | None,
    changes: dict[str, Any],
) -> None:
    file = tmp_path / "marked.safetensors"
    save_file({**load_file(sd15.file), **marks}, file, metadata)
    cpu = torch.device("cpu")
    model = load_single_file("mine", Base.SD15, file, cpu, torch.float32, prediction=known)
    assert model.scheduler_config == {**SCHEDULE, **changes}


def widened(tensors: dict[str, Any]) -> dict[str, Any]:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    return {**tensors, first: tensors[first].repeat(1, 2, 1, 1)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: {"x": torch.zeros(1)}, "neither a checkpoint, a LoRA nor an embedding"),
        (without("first_stage_model."), "no autoencoder"),
        (widened, "takes 8 channels"),
        (plus(edm_mean=torch.ones(4)), "a noise schedule of its own"),
        (lambda _: {"down_blocks.0.x": torch.zeros(1)}, "a UNet alone"),
        (without("cond_stage_model."), "no text encoder"),
        (renamed("cond_stage_model.transformer.", "cond_stage_model.model."), "Diffusion 2"),
        (without("model.diffusion_model.out.2"), "not laid out like a sd15 checkpoint"),
        (without("model.diffusion_model.middle_block.0.in_layers.2"), "not laid out like"),
    ],
)
def test_other_files_are_refused_in_one_line(
    sd15: Any, tmp_path: Path, change: Change, said: str
) -> None:
    file = tmp_path / "other.safetensors"
    save_file(change(load_file(sd15.file)), file)
    with pytest.raises(WeightsError, match=said) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in caught.value.public


@pytest.mark.parametrize(
    ("model", "base", "kind", "said"),
    [
        ("sdxl", Base.SD15, None, 'is a sdxl checkpoint, .* says sd15; write base = "sdxl"'),
        ("refiner", Base.SDXL, Kind.BASE, 'is a sdxl refiner, .* base; write kind = "refiner"'),
        ("refiner", Base.SDXL, Kind.CHECKPOINT, 'sdxl checkpoint; write kind = "refiner"'),
        ("sdxl", Base.SDXL, Kind.REFINER, 'says sdxl refiner; write kind = "checkpoint"'),
        ("sd15", Base.SDXL, Kind.REFINER, 'write kind = "checkpoint" and base = "sd15"'),
    ],
)
def test_a_file_of_another_base_or_kind_is_refused(
    save: Any, model: str, base: Base, kind: Kind | None, said: str
) -> None:
    file = save(model).file
    with pytest.raises(WeightsError, match=said) as caught:
        load_single_file("mine", base, file, torch.device("cpu"), torch.float32, kind=kind)
    assert str(file) not in caught.value.public


@pytest.mark.parametrize("left", [0, 7, 5000, -1])
def test_a_truncated_file_is_refused(sd15: Any, tmp_path: Path, left: int) -> None:
    file = tmp_path / "cut.safetensors"
    file.write_bytes(sd15.file.read_bytes()[:left])
    with pytest.raises(WeightsError, match=r"damaged or not whole.*download it again"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*mine.safetensors"):
        read_header(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_never_opened(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(WeightsError, match=r"must be \.safetensors"):
        read_header(tmp_path / f"mine{suffix}")
