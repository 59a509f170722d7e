"""Models in the folder layout of diffusers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from afterdetail.errors import WeightsError
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


def test_missing_parts_are_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="lacks text_encoder_2, tokenizer_2 of sdxl"):
        load(folder, Base.SDXL)


def test_a_folder_of_another_base_is_refused(sdxl: Any, tmp_path: Path) -> None:
    folder = save(sdxl.model, tmp_path / "mine")
    with pytest.raises(WeightsError, match="is of sdxl, the catalogue says sd15"):
        load(folder)


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
    load_folder("mine", Base.SD15, folder, CPU, torch.float16)
    done.set()
    thread.join()
    assert seen == {("cpu", torch.float32)}
