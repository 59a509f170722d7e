"""Textual inversions against diffusers' own way with them, and without a trace afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from afterdetail.errors import InvalidInput, ModelUnavailable
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.inversion import Inversion, read_inversion
from afterdetail.models.text import Embedded, Text, encode_texts, prompt_windows
from afterdetail.models.tokenizer import clip_tokenizer
from afterdetail.options import Base

Make = Callable[[str], DiffusionModel]
Tensors = dict[str, torch.Tensor]

NAME = "frizzle"
FIRST_WIDTH, SECOND_WIDTH = 64, 128
PROMPTS = (NAME, f"a photo of {NAME}, smiling", f"{NAME} and {NAME}", "a photo of a cat")


def vectors(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


LAYOUTS: dict[str, tuple[str, Tensors]] = {
    "diffusers, one vector": ("sd15", {"<cat>": vectors(1, FIRST_WIDTH)[0]}),
    "diffusers, three": ("sd15", {"<cat>": vectors(3, FIRST_WIDTH)}),
    "web UI, one": ("sd15", {"emb_params": vectors(1, FIRST_WIDTH)}),
    "web UI, four": ("sd15", {"emb_params": vectors(4, FIRST_WIDTH)}),
    "SDXL, one": (
        "sdxl",
        {"clip_l": vectors(1, FIRST_WIDTH), "clip_g": vectors(1, SECOND_WIDTH)},
    ),
    "SDXL, two": (
        "sdxl",
        {"clip_l": vectors(2, FIRST_WIDTH), "clip_g": vectors(2, SECOND_WIDTH)},
    ),
}


def write(folder: Path, tensors: Tensors, name: str = NAME) -> ModelSpec:
    file = folder / f"{name}.safetensors"
    save_file(tensors, file)
    return ModelSpec(name, Kind.EMBEDDING, Source(path=str(file)), Base.SD15)


@torch.inference_mode()
def encode(model: DiffusionModel, *prompts: str, inversions: list[Inversion]) -> list[Embedded]:
    texts = [Text(prompt_windows(model, prompt, inversions)) for prompt in prompts]
    return encode_texts(model, texts)


@torch.inference_mode()
def by_diffusers(model: DiffusionModel, file: str, tensors: Tensors) -> list[Embedded]:
    """What diffusers' loader and pipeline make of the prompts; the model is used up by it."""
    common = {
        "vae": model.vae,
        "unet": model.unet,
        "scheduler": DDIMScheduler.from_config(dict(model.scheduler_config)),
        "text_encoder": model.text_encoder,
        "tokenizer": clip_tokenizer.__wrapped__(),  # it gets new words
    }
    if model.base is Base.SD15:
        pipe = StableDiffusionPipeline(
            **common,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.load_textual_inversion(file, token=NAME)
    else:
        pipe = StableDiffusionXLPipeline(
            **common,
            text_encoder_2=model.text_encoder_2,
            tokenizer_2=clip_tokenizer.__wrapped__("!"),
        )
        for part, tokenizer, encoder in (
            ("clip_l", pipe.tokenizer, pipe.text_encoder),
            ("clip_g", pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            pipe.load_textual_inversion(
                tensors[part], token=NAME, tokenizer=tokenizer, text_encoder=encoder
            )
    encoded = [
        pipe.encode_prompt(
            prompt, device=model.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        for prompt in PROMPTS
    ]
    return [Embedded(parts[0], parts[2] if len(parts) > 2 else None) for parts in encoded]


def bits(model: DiffusionModel) -> Tensors:
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in model.networks.items()
        for key, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_are_read_as_diffusers_reads_them(make: Make, tmp_path: Path, layout: str) -> None:
    kind, tensors = LAYOUTS[layout]
    model = make(kind)
    spec = write(tmp_path, tensors)
    before = bits(model)
    found = encode(model, *PROMPTS, inversions=[read_inversion(spec)])
    after = bits(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    plain = encode(model, *PROMPTS, inversions=[])
    assert torch.equal(found[-1].tokens, plain[-1].tokens)
    assert not torch.allclose(found[0].tokens, plain[0].tokens, atol=1e-2)
    expected = by_diffusers(model, str(spec.source.path), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.tokens, theirs.tokens, atol=1e-5)
        if theirs.pooled is not None:
            assert ours.pooled is not None
            assert torch.allclose(ours.pooled, theirs.pooled, atol=1e-5)


def test_the_refiner_reads_its_own_encoders_part(make: Make, tmp_path: Path) -> None:
    inversion = read_inversion(write(tmp_path, LAYOUTS["SDXL, two"][1]))
    found, plain = (encode(make("refiner"), NAME, inversions=use) for use in ([inversion], []))
    assert not torch.allclose(found[0].tokens, plain[0].tokens, atol=1e-2)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("", 0),
        ("frizzled", 0),
        ("un-frizzle", 2),
        ("FRIZZLE", 2),
        ("a (frizzle:1.3)", 2),
        ("frizzle,frizzle", 4),
    ],
)
def test_a_name_counts_where_it_is_a_word(
    make: Make, tmp_path: Path, prompt: str, found: int
) -> None:
    inversion = read_inversion(write(tmp_path, {"emb_params": vectors(2, FIRST_WIDTH)}))
    windows = prompt_windows(make("sd15"), prompt, [inversion])
    assert sum(not isinstance(token, int) for w in windows for token in w.ids) == found


def test_the_longest_name_is_taken(make: Make, tmp_path: Path) -> None:
    tensors = {"emb_params": vectors(1, FIRST_WIDTH)}
    both = [read_inversion(write(tmp_path, tensors, name)) for name in ("bad", "bad hands")]
    (window,) = prompt_windows(make("sd15"), "bad hands", both)
    (word,) = [token.word.name for token in window.ids if not isinstance(token, int)]
    assert word == "bad hands"


@pytest.mark.parametrize(("of", "on"), [("SDXL, one", "sd15"), ("web UI, one", "sdxl")])
def test_an_inversion_of_another_base_is_refused(
    make: Make, tmp_path: Path, of: str, on: str
) -> None:
    wide = {name: torch.cat([part, part], 1) for name, part in LAYOUTS[of][1].items()}
    inversion = read_inversion(write(tmp_path, wide))
    with pytest.raises(InvalidInput, match="does not fit this model") as caught:
        encode(make(on), NAME, inversions=[inversion])
    assert (caught.value.code, caught.value.field) == ("adapter_incompatible", "prompt")


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.ones(1, 64), "b": torch.ones(1, 64)},
        {"emb_params": torch.ones(1, 2, 64)},
        {"emb_params": torch.full((1, 64), float("nan"))},
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    with pytest.raises(InvalidInput, match="is damaged or none") as caught:
        read_inversion(write(tmp_path, tensors))
    assert str(tmp_path) not in caught.value.public


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    spec = replace(write(tmp_path, {"emb_params": torch.ones(1, 64)}), sha256="0" * 64)
    with pytest.raises(InvalidInput, match="is not the frizzle of the catalogue: sha256"):
        read_inversion(spec)


def test_a_cut_file_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    spec = write(tmp_path, {"emb_params": torch.ones(1, 64)})
    file = Path(str(spec.source.path))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InvalidInput, match="download it again"):
        read_inversion(spec)
    file.unlink()
    with pytest.raises(ModelUnavailable, match="weights of frizzle are missing"):
        read_inversion(spec)
