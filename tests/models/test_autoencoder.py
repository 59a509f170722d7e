"""An autoencoder of its own file in the place of a model's."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from afterdetail.errors import WeightsError
from afterdetail.models.autoencoder import load_autoencoder
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.loader import load_model
from afterdetail.models.networks import Target
from afterdetail.options import Base

CPU = torch.device("cpu")
TARGET = Target(CPU, torch.float32)
PREFIX = "first_stage_model."
original_vae = runpy.run_path(str(Path(__file__).with_name("original_layout.py")))["original_vae"]

Tensors = dict[str, torch.Tensor]
LAYOUTS: dict[str, Callable[[Any], Tensors]] = {
    "diffusers": lambda vae: dict(vae.state_dict()),
    "original": original_vae,
    "original without prefix": lambda vae: {
        name.removeprefix(PREFIX): tensor for name, tensor in original_vae(vae).items()
    },
}


@pytest.fixture
def vae(make: Any) -> Any:
    network = make("sdxl").vae
    for parameter in network.parameters():
        parameter.mul_(1.5)
    return network


def write(folder: Path, tensors: Tensors) -> Path:
    file = folder / "vae.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("base", "scale"), [(Base.SD15, 0.18215), (Base.SDXL, 0.13025)])
def test_every_layout_comes_back_bit_for_bit(
    vae: Any, tmp_path: Path, layout: str, base: Base, scale: float
) -> None:
    found = load_autoencoder("a", base, write(tmp_path, LAYOUTS[layout](vae)), TARGET)
    expected = vae.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[name]) for name, t in found.state_dict().items())
    assert found.config.scaling_factor == scale


def test_a_folder_of_diffusers_is_one_too(vae: Any, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path)
    found = load_autoencoder("a", Base.SDXL, tmp_path, TARGET)
    expected = vae.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in found.state_dict().items())
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="not laid out"):
        load_autoencoder("a", Base.SDXL, tmp_path, TARGET)
    assert found.config.layers_per_block == vae.config.layers_per_block


@pytest.mark.parametrize("harm", ["conv_in", "encoder", "quant_conv"])
def test_a_part_that_is_missing_is_told(vae: Any, tmp_path: Path, harm: str) -> None:
    tensors = {name: t for name, t in vae.state_dict().items() if harm not in name}
    with pytest.raises(WeightsError, match="not laid out like an autoencoder of sdxl") as caught:
        load_autoencoder("a", Base.SDXL, write(tmp_path, tensors), TARGET)
    assert "\n" not in str(caught.value)


def test_a_model_is_loaded_with_the_one_that_its_entry_names(
    sdxl: Any, vae: Any, tmp_path: Path
) -> None:
    file = write(tmp_path, LAYOUTS["original"](vae))
    better = ModelSpec("better", Kind.VAE, Source(path=str(file)), Base.SDXL)
    plain = ModelSpec("xl", Kind.BASE, Source(path=str(sdxl.file)), Base.SDXL)
    loaded = [load_model(s, CPU, torch.float32) for s in (plain, replace(plain, vae=better))]
    weights = [model.vae.decoder.conv_in.weight for model in loaded]
    assert torch.equal(weights[0], sdxl.model.vae.decoder.conv_in.weight)
    assert torch.equal(weights[1], vae.decoder.conv_in.weight)
