"""The base of a LoRA, told from its header."""

from __future__ import annotations

import pytest

from afterdetail.models.catalogue import Kind
from afterdetail.models.header import Header, Shape
from afterdetail.models.recognise import Recognised, Unrecognised, recognise
from afterdetail.options import Base

SD15, SDXL = Base.SD15, Base.SDXL


def lora(layer: str, width: int, mark: str) -> dict[str, Shape]:
    return {f"{layer}{mark}": (4, width)}


def kohya(layer: str, width: int = 640) -> dict[str, Shape]:
    return lora(f"lora_{layer}", width, ".lora_down.weight")


def peft(layer: str, width: int = 640) -> dict[str, Shape]:
    return lora(layer, width, ".lora_A.weight")


def test_an_empty_header_is_of_nothing() -> None:
    with pytest.raises(Unrecognised, match="neither a checkpoint, a LoRA nor an embedding"):
        recognise(Header({}, {}))


@pytest.mark.parametrize(
    ("shapes", "base"),
    [
        # The width of the text goes before everything.
        (kohya("unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 768), SD15),
        (kohya("unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 2048), SDXL),
        (kohya("unet_middle_block_1_transformer_blocks_0_attn2_to_v", 768), SD15),
        (peft("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v", 2048), SDXL),
        # Then layers that only one base has.
        (kohya("unet_mid_block_attentions_0_transformer_blocks_9_attn1_to_q"), SDXL),
        (kohya("unet_input_blocks_4_1_transformer_blocks_1_ff_net_2"), SDXL),
        (peft("unet.down_blocks.2.attentions.0.transformer_blocks.5.attn1.to_q"), SDXL),
        (peft("unet.up_blocks.0.attentions.0.proj_in"), SDXL),
        (peft("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", 320), SD15),
        (kohya("unet_up_blocks_3_attentions_2_transformer_blocks_0_attn1_to_q", 320), SD15),
        (kohya("unet_down_blocks_3_resnets_0_conv1", 1280), SD15),
        (kohya("unet_output_blocks_11_1_transformer_blocks_0_attn1_to_q", 320), SD15),
        (kohya("te1_text_model_encoder_layers_0_mlp_fc1", 768), SDXL),
        (kohya("te2_text_model_encoder_layers_0_mlp_fc1", 1280), SDXL),
        (peft("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 1280), SDXL),
        (kohya("te_text_model_encoder_layers_0_mlp_fc1", 768), SD15),
        # Then how kohya's scripts name layers that both bases have.
        (kohya("unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"), SDXL),
        (kohya("unet_middle_block_0_in_layers_2", 1280), SDXL),
        (kohya("unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"), SD15),
    ],
)
def test_the_base_of_a_lora_is_read_from_its_layers(shapes: dict[str, Shape], base: Base) -> None:
    assert recognise(Header(shapes, {})) == Recognised(Kind.LORA, base)


@pytest.mark.parametrize(
    ("metadata", "base"),
    [
        ({}, SD15),
        ({"ss_base_model_version": "sd_v1"}, SD15),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, SDXL),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, SD15),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, SDXL),
    ],
)
@pytest.mark.parametrize(
    "shapes",
    [
        kohya("unet_mid_block_resnets_0_conv1", 1280),
        peft("unet.mid_block.resnets.0.conv1", 1280),
        peft("text_encoder.text_model.encoder.layers.0.mlp.fc1", 768),
    ],
)
def test_metadata_counts_where_the_layers_do_not_tell(
    shapes: dict[str, Shape], metadata: dict[str, str], base: Base
) -> None:
    assert recognise(Header(shapes, metadata)).base is base


def test_what_the_weights_say_goes_before_metadata() -> None:
    shapes = kohya("unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 768)
    assert recognise(Header(shapes, {"ss_base_model_version": "sdxl_base_v1-0"})).base is SD15
