"""LoRA files as trainers have written them through the years, against diffusers' own loader."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from afterdetail.errors import InvalidInput
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.header import read_header
from afterdetail.models.lora import with_loras
from afterdetail.models.recognise import Unrecognised, recognise
from afterdetail.options import Base

HELP = runpy.run_path(str(Path(__file__).with_name("test_lora.py")))
kohya_layout, peft_layout = HELP["kohya_layout"], HELP["peft_layout"]

Tensors = dict[str, torch.Tensor]
Layers = Mapping[str, torch.nn.Module]
Make = Callable[[str], DiffusionModel]


def pairs(layers: Layers, keys: Callable[[str], str | None], down: str, up: str) -> Tensors:
    """Random factors of the layers that ``keys`` has a name for."""
    tensors: Tensors = {}
    for number, (name, layer) in enumerate(layers.items()):
        key = keys(name)
        if key is not None:
            parts = HELP["factors"](layer, number)
            tensors |= {f"{key}.{end}": part for end, part in zip((down, up), parts, strict=True)}
    return tensors


def text_layer(name: str) -> str:
    """Where old files have the level ``text_model`` that transformers took out."""
    network, _, rest = name.partition(".")
    return f"{network}.text_model.{rest.removeprefix('text_model.')}"


def as_processor(name: str) -> str | None:
    """Attention processors, of the UNet and of the text encoder: early diffusers."""
    found = re.fullmatch(r"(.*)\.(?:to_(q|k|v|out)(?:\.0)?|(q|k|v|out)_proj)", name)
    if not found:
        return None
    if name.startswith("unet."):
        return f"{found[1]}.processor.to_{found[2]}_lora"
    return f"{text_layer(found[1])}.to_{found[3]}_lora"


def processors(layers: Layers) -> Tensors:
    return pairs(layers, as_processor, "down.weight", "up.weight")


def unet_alone(layers: Layers) -> Tensors:
    """The earliest diffusers: the UNet is not named."""
    unet = {name: layer for name, layer in layers.items() if name.startswith("unet.")}
    return {name.removeprefix("unet."): tensor for name, tensor in processors(unet).items()}


def linear_layers(layers: Layers) -> Tensors:
    """Later diffusers, before peft: two words for one thing."""
    unet = pairs(
        {name: layer for name, layer in layers.items() if re.search(r"unet.*\.attn\d\.to_", name)},
        lambda name: f"{name}.lora",
        "down.weight",
        "up.weight",
    )
    text = pairs(
        {name: layer for name, layer in layers.items() if re.search(r"text.*self_attn", name)},
        lambda name: f"{text_layer(name)}.lora_linear_layer",
        "down.weight",
        "up.weight",
    )
    return unet | text


def without_alpha(layers: Layers) -> Tensors:
    tensors: Tensors = kohya_layout(layers, 0)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}


def halved(layers: Layers) -> Tensors:
    return {name: tensor.half() for name, tensor in kohya_layout(layers, 0).items()}


def text_alone(layers: Layers) -> Tensors:
    return {name: tensor for name, tensor in kohya_layout(layers, 0).items() if "_te" in name}


def kohya_by_diffusers_names(layers: Layers) -> Tensors:
    """For SDXL, OneTrainer and converters name layers so; kohya's own name the original's."""
    return pairs(
        {name: layer for name, layer in layers.items() if name.startswith("unet.")},
        lambda name: f"lora_{name}".replace(".", "_"),
        "lora_down.weight",
        "lora_up.weight",
    )


def every_layer(model: DiffusionModel) -> Layers:
    """As in LoCon: convolutions, up- and downsamplers, projections of the time, too."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {f"unet.{n}": m for n, m in model.unet.named_modules() if isinstance(m, kinds)}


def compare(make: Make, kind: str, folder: Path, tensors: Tensors) -> None:
    model = make(kind)
    use = LoraUse(HELP["write"](folder, "l", tensors), 0.7)
    before, ours = HELP["bits"](model), HELP["bits"](with_loras(model, [use]))
    theirs = HELP["by_diffusers"](model, [use])
    assert HELP["changed"](ours, before) == HELP["changed"](theirs, before) != set()
    for name, expected in theirs.items():
        assert torch.allclose(ours[name], expected, atol=1e-6, rtol=1e-5), name


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("sd15", processors),
        ("sd15", linear_layers),
        ("sd15", without_alpha),
        ("sd15", halved),
        ("sdxl", linear_layers),
        ("sdxl", text_alone),
        ("sdxl", kohya_by_diffusers_names),
    ],
)
def test_every_layout_means_what_it_means_in_diffusers(
    make: Make, tmp_path: Path, kind: str, layout: Callable[[Layers], Tensors]
) -> None:
    compare(make, kind, tmp_path, layout(HELP["adapted_layers"](make(kind))))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_every_layer_of_a_unet_may_change(make: Make, tmp_path: Path, kind: str) -> None:
    compare(make, kind, tmp_path, kohya_by_diffusers_names(every_layer(make(kind))))


def test_a_file_of_a_unet_alone_is_read_as_if_it_said_so(make: Make, tmp_path: Path) -> None:
    """Today's ``load_lora_weights`` does not read it; what it did read is the same file named."""
    model = make("sd15")
    layers = HELP["adapted_layers"](model)
    bare, write = unet_alone(layers), HELP["write"]
    named = {f"unet.{name}": tensor for name, tensor in bare.items()}
    uses = [LoraUse(write(tmp_path, name, t), 0.7) for name, t in (("a", bare), ("b", named))]
    one, other = (HELP["bits"](with_loras(model, [use])) for use in uses)
    assert HELP["changed"](one, HELP["bits"](model))
    assert HELP["same"](one, other)


DOWN = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
STEM = DOWN.removesuffix(".lora_down.weight")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (f"{STEM}.dora_scale", "a DoRA"),
        ("unet.mid_block.x.lora_magnitude_vector.weight", "a DoRA"),
        (f"{STEM}.hada_w1_a", "a LoHa"),
        (f"{STEM}.lokr_w1", "a LoKr"),
        (f"{STEM}.oft_blocks", "an OFT"),
        (f"{STEM}.on_input", r"an \(IA\)3"),
        (f"{STEM}.lora_mid.weight", "Tucker"),
        (f"{STEM}.diff", "whole differences"),
        ("bundle_emb.word.string_to_param.*", "with embeddings in it"),
        ("base_model.model.mid_block.x.lora_A.weight", "peft's own adapter"),
    ],
)
def test_other_adapters_are_named_wherever_they_are_given(
    make: Make, tmp_path: Path, extra: str, said: str
) -> None:
    """By what sets them apart, also where the rest of the file is a plain LoRA."""
    spec = HELP["write"](tmp_path, "l", {DOWN: torch.ones(1, 768), extra: torch.ones(1)})
    with pytest.raises(Unrecognised, match=said):
        recognise(read_header(Path(str(spec.source.path))))
    with pytest.raises(InvalidInput, match=said) as caught:
        with_loras(make("sd15"), [LoraUse(spec, 1.0)])
    assert caught.value.code == "adapter_incompatible"


def test_a_wrong_checksum_is_told(make: Make, tmp_path: Path) -> None:
    model = make("sd15")
    spec = HELP["write"](tmp_path, "l", without_alpha(HELP["adapted_layers"](model)))
    wrong = replace(spec, sha256="0" * 64)
    with pytest.raises(InvalidInput, match="is not the l of the catalogue: sha256") as caught:
        with_loras(model, [LoraUse(wrong, 1.0)])
    assert "sha256" not in caught.value.public


def test_layers_under_unknown_names_are_not_left_out(make: Make, tmp_path: Path) -> None:
    """What is known of the text encoder does not hide what is not of the UNet."""
    odd = {f"unet.mid_block.x.lora_{way}.odd.weight": torch.ones(2, 2) for way in "AB"}
    known = peft_layout({"text_encoder.encoder.layers.0.mlp.fc1": torch.nn.Linear(64, 128)}, 0)
    spec = HELP["write"](tmp_path, "l", odd | known)
    with pytest.raises(InvalidInput, match="its layers of the unet have names that are not known"):
        with_loras(make("sd15"), [LoraUse(spec, 1.0)])


@pytest.mark.parametrize(
    ("key", "base"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", Base.SD15),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", Base.SDXL),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", Base.SDXL),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", Base.SDXL),
    ],
)
def test_the_base_of_a_lora_of_text_alone_shows_in_its_names(
    tmp_path: Path, key: str, base: Base
) -> None:
    file = tmp_path / "l.safetensors"
    save_file({f"{key}.lora_down.weight": torch.ones(1, 64)}, file)
    assert recognise(read_header(file)).base is base
