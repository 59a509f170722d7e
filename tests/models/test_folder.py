"""Models in the folder layout of diffusers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Kind
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.folder import load_folder
from afterdetail.options import Base

CPU = torch.device("cpu")


def save(model: DiffusionModel, folder: Path, **arguments: Any) -> Path:
    """Written by the libraries themselves."""
    for name, network in model.networks.items():
        network.save_pretrained(folder / name, **arguments)  # type: ignore[operator]
    for part in ("tokenizer", "tokenizer_2"):
        if getattr(model, part) is not None:
            getattr(model, part).save_pretrained(folder / part)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(model.scheduler_config))
    return folder


def load(folder: Path, base: Base = Base.SD15) -> DiffusionModel:
    return load_folder("mine", base, folder, CPU, torch.float32)


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture
def folder(sd15: Any, tmp_path: Path) -> Path:
    return save(sd15.model, tmp_path / "mine")


def test_every_network_comes_back_bit_for_bit(saved: Any, tmp_path: Path) -> None:
    loaded = load(save(saved.model, tmp_path / "mine"), saved.model.base)
    assert loaded.networks.keys() == saved.model.networks.keys()
    for name, network in loaded.networks.items():
        assert same(network, saved.model.networks[name]), name
    assert loaded.scheduler_config == saved.model.scheduler_config
    for part in ("tokenizer", "tokenizer_2"):
        before, after = getattr(saved.model, part), getattr(loaded, part)
        assert (before is None) == (after is None)
        if before is not None:
            arguments: dict[str, Any] = {"padding": "max_length"}
            assert before("a cat", **arguments).input_ids == after("a cat", **arguments).input_ids


def test_the_schedule_is_the_folders_own(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    file.write_text(json.dumps(config))
    assert load(folder).scheduler_config == config


def test_half_precision_is_preferred(sd15: Any, folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(half, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    weights.write_bytes(b"never read")
    expected = sd15.model.unet.conv_in.weight.half().float()
    assert torch.equal(load(folder).unet.conv_in.weight, expected)


def test_shards_are_put_together(sd15: Any, tmp_path: Path) -> None:
    folder = save(sd15.model, tmp_path / "mine", max_shard_size="500KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    assert same(load(folder).unet, sd15.model.unet)


def test_old_names_of_the_autoencoder_are_read(sd15: Any, folder: Path) -> None:
    """As in the repository of SD 1.5."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, file)
    assert same(load(folder).vae, sd15.model.vae)


def delete(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def to_pickle(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def cut(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete("unet/config.json"), "cannot be loaded"),
        (delete("vae/config.json"), "cannot be loaded"),
        (delete("scheduler/scheduler_config.json"), "cannot be loaded"),
        (to_pickle, "unet has no .safetensors weights"),
        (cut, "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    folder: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(folder)
    with pytest.raises(WeightsError, match=said) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) not in caught.value.public


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer_2", "text_encoder_2", "vae"])
def test_missing_parts_are_named(sdxl: Any, tmp_path: Path, part: str) -> None:
    folder = save(sdxl.model, tmp_path / "mine")
    (folder / part).rename(folder / "elsewhere")
    with pytest.raises(WeightsError, match=f"lacks {part} of sdxl"):
        load(folder, Base.SDXL)


@pytest.mark.parametrize(
    ("model", "kind", "read", "added"),
    [("sdxl", Kind.BASE, 2048, 1280 + 6 * 256), ("refiner", Kind.REFINER, 1280, 1280 + 5 * 256)],
)
def test_a_missing_text_encoder_leaves_a_folder_what_it_is(
    make: Any, tmp_path: Path, model: str, kind: Kind, read: int, added: int
) -> None:
    """By the widths that SDXL and its refiner have."""
    folder = save(make(model), tmp_path / "mine")
    (folder / "text_encoder_2").rename(folder / "elsewhere")
    widths = {
        "cross_attention_dim": read,
        "projection_class_embeddings_input_dim": added,
        "addition_time_embed_dim": 256,
    }
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **widths}))
    with pytest.raises(WeightsError, match="lacks text_encoder_2 of sdxl"):
        load_folder("mine", Base.SDXL, folder, CPU, torch.float32, kind=kind)


@pytest.mark.parametrize(
    ("model", "base", "kind", "said"),
    [
        ("sdxl", Base.SD15, None, 'is a sdxl checkpoint, .* says sd15; write base = "sdxl"'),
        ("sd15", Base.SDXL, None, 'is a sd15 checkpoint, .* says sdxl; write base = "sd15"'),
        ("refiner", Base.SDXL, Kind.BASE, 'is a sdxl refiner, .* base; write kind = "refiner"'),
        ("sdxl", Base.SDXL, Kind.REFINER, 'says sdxl refiner; write kind = "checkpoint"'),
        ("sd15", Base.SDXL, Kind.REFINER, 'write kind = "checkpoint" and base = "sd15"'),
    ],
)
def test_a_folder_of_another_base_or_kind_is_refused(
    make: Any, tmp_path: Path, model: str, base: Base, kind: Kind | None, said: str
) -> None:
    folder = save(make(model), tmp_path / "mine")
    with pytest.raises(WeightsError, match=said) as caught:
        load_folder("mine", base, folder, CPU, torch.float32, kind=kind)
    assert str(folder) not in caught.value.public


def of_sd2(folder: Path) -> None:
    """As Stable Diffusion 2.x is saved: the same parts, and wider text."""
    config = json.loads((folder / "unet" / "config.json").read_text())
    wider = UNet2DConditionModel.from_config({**config, "cross_attention_dim": 1024})
    wider.save_pretrained(folder / "unet")


def of_playground(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "EDMDPMSolverMultistepScheduler"}))


def of_flux(folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_sd2, "a Stable Diffusion 2 checkpoint; only Stable Diffusion 1.x and SDXL are served"),
        (of_playground, "a noise schedule of its own"),
        (of_flux, "it has no unet"),
    ],
)
def test_other_architectures_are_refused_in_one_line(
    folder: Path, change: Callable[[Path], None], said: str
) -> None:
    change(folder)
    with pytest.raises(WeightsError, match=said) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) not in caught.value.public


@pytest.mark.parametrize(("channels", "takes_mask"), [(4, False), (9, True)])
def test_masks_go_in_where_the_weights_take_them(
    make: Any, tmp_path: Path, channels: int, takes_mask: bool
) -> None:
    model = make("sd15-inpainting" if channels == 9 else "sd15")
    assert load(save(model, tmp_path / "mine")).takes_mask == takes_mask


def test_other_channels_are_refused(folder: Path) -> None:
    """As those of InstructPix2Pix: latents and the picture to change."""
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].repeat(1, 2, 1, 1)
    save_file(tensors, weights)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 8}))
    with pytest.raises(WeightsError, match="its UNet takes 8 channels"):
        load(folder)


def test_loading_changes_nothing_for_other_threads(folder: Path) -> None:
    """transformers' own loader sets the default precision of the whole process meanwhile."""
    seen, done = set(), threading.Event()

    def work() -> None:
        while not done.is_set():
            layer = torch.nn.Linear(2, 2)
            seen.add((layer.weight.device.type, layer.weight.dtype))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        load_folder("mine", Base.SD15, folder, CPU, torch.float16)
    finally:
        done.set()
        thread.join()
    assert seen == {("cpu", torch.float32)}
