"""Which model repaints which request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afterdetail.errors import InvalidInput, ModelUnavailable, UnknownName
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, Source
from afterdetail.models.choose import Choice, LoraUse, choose, suitable_base
from afterdetail.models.resolutions import RESOLUTIONS, listed
from afterdetail.options import Base, DetailOptions, parse_options
from afterdetail.types import Size

SD15, SDXL = Base.SD15, Base.SDXL


def spec(name: str, kind: Kind, base: Base) -> ModelSpec:
    return ModelSpec(name, kind, Source(path=f"/models/{name}"), base)


PARTS = (
    spec("paint15", Kind.CHECKPOINT, SD15),
    spec("paintxl", Kind.CHECKPOINT, SDXL),
    spec("line15", Kind.LORA, SD15),
    spec("linexl", Kind.LORA, SDXL),
)
BOTH = Catalogue((spec("sd15", Kind.BASE, SD15), spec("sdxl", Kind.BASE, SDXL), *PARTS))
ONLY_SD15 = Catalogue((spec("sd15", Kind.BASE, SD15), *PARTS))


def test_nothing_served_is_said() -> None:
    with pytest.raises(ModelUnavailable, match="no base model"):
        choose(DetailOptions(), (512, 512), Catalogue(()))


@pytest.mark.parametrize(
    ("size", "base"),
    [
        ((512, 512), SD15),  # only in sd15's list
        ((640, 1536), SDXL),  # only in sdxl's list
        ((1024, 1024), SDXL),  # in both: sdxl first
        ((500, 500), SD15),  # in none: nearest native area
        ((1100, 1000), SDXL),
        ((805, 805), SD15),  # 648,025 pixels: nearer to 512x512
        ((815, 815), SDXL),  # 664,225 pixels: nearer to 1024x1024
    ],
)
def test_a_picture_chooses_among_the_bases_served(size: Size, base: Base) -> None:
    assert choose(DetailOptions(), size, BOTH).model.base is base
    assert choose(DetailOptions(), size, ONLY_SD15).model.base is SD15


def test_the_order_of_the_served_bases_does_not_matter() -> None:
    assert suitable_base((1024, 1024), [SD15, SDXL]) is suitable_base((1024, 1024), [SDXL, SD15])


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_a_named_base_is_taken_whatever_the_size(base: str) -> None:
    options = parse_options({"inpainting_base_model": base})
    assert choose(options, (512, 512), BOTH).model.name == base


@pytest.mark.parametrize(
    ("options", "error", "code", "field"),
    [
        (
            {"inpainting_base_model": "sdxl"},
            ModelUnavailable,
            "model_unavailable",
            "inpainting_base_model",
        ),
        ({"checkpoint": "paint16"}, UnknownName, "unknown_name", "checkpoint"),
        ({"checkpoint": "../paint15"}, UnknownName, "unknown_name", "checkpoint"),
        ({"checkpoint": "line15"}, UnknownName, "unknown_name", "checkpoint"),
        (
            {"checkpoint": "octoai:paintxl", "inpainting_base_model": "sd15"},
            InvalidInput,
            "checkpoint_incompatible",
            "checkpoint",
        ),
        # of a base that is not served, which the checkpoint alone asks for
        (
            {"checkpoint": "paintxl"},
            ModelUnavailable,
            "model_unavailable",
            "inpainting_base_model",
        ),
        ({"loras": {"line16": 1}}, UnknownName, "unknown_name", "loras"),
        ({"loras": {"line16": 0}}, UnknownName, "unknown_name", "loras"),
        ({"loras": {"linexl": 0}}, InvalidInput, "adapter_incompatible", "loras"),
        ({"use_refiner": True}, InvalidInput, "refiner_unsupported", "use_refiner"),
    ],
)
def test_refusals(
    options: dict[str, object], error: type[InvalidInput], code: str, field: str
) -> None:
    with pytest.raises(error) as caught:
        choose(parse_options(options), (512, 512), ONLY_SD15)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_an_unserved_base_lists_those_served() -> None:
    with pytest.raises(ModelUnavailable, match="served: sd15"):
        choose(parse_options({"inpainting_base_model": "sdxl"}), (512, 512), ONLY_SD15)


def test_an_unknown_checkpoint_lists_the_closest() -> None:
    with pytest.raises(UnknownName, match="closest: paint15"):
        choose(parse_options({"checkpoint": "paint16"}), (512, 512), ONLY_SD15)


LINE = spec("line15", Kind.LORA, SD15)


@pytest.mark.parametrize(
    ("loras", "used"),
    [
        ({}, []),
        ({"line15": 0}, []),
        ({"line15": 0.0, "octoai:line15": -0.0}, []),
        ({"line15": None}, [LoraUse(LINE, 1.0)]),
        ({"line15": -0.5}, [LoraUse(LINE, -0.5)]),
    ],
)
def test_loras_of_weight_zero_are_none(loras: dict[str, float], used: list[LoraUse]) -> None:
    expected = Choice(spec("sd15", Kind.BASE, SD15), frozenset(used))
    assert choose(parse_options({"loras": loras}), (512, 512), ONLY_SD15) == expected


@pytest.mark.parametrize("base", [None, "sd15"])
def test_a_checkpoint_replaces_the_base(base: str | None) -> None:
    options = parse_options({"checkpoint": "octoai:paint15", "inpainting_base_model": base})
    assert choose(options, (1024, 1024), BOTH) == Choice(spec("paint15", Kind.CHECKPOINT, SD15))


def test_without_a_refiner_in_the_catalogue_there_is_none() -> None:
    with pytest.raises(ModelUnavailable, match="no refiner of sdxl is served here") as caught:
        choose(parse_options({"use_refiner": True}), (1024, 1024), BOTH)
    assert caught.value.field == "use_refiner"


def test_a_refiner_is_chosen_when_asked_for() -> None:
    refiner = spec("fine", Kind.REFINER, SDXL)
    catalogue = Catalogue((*BOTH.models, refiner, spec("finer", Kind.REFINER, SDXL)))
    for asked, chosen in ((False, None), (True, refiner)):
        options = parse_options({"use_refiner": asked, "checkpoint": "paintxl"})
        assert choose(options, (1024, 1024), catalogue).refiner == chosen


def test_a_refiner_of_another_model_is_passed_over() -> None:
    of_xl = replace(spec("plain", Kind.REFINER, SDXL), of="sdxl")
    of_paint = replace(spec("fine", Kind.REFINER, SDXL), of="paintxl")
    options = parse_options({"use_refiner": True, "checkpoint": "paintxl"})
    chosen = choose(options, (1024, 1024), Catalogue((*BOTH.models, of_xl, of_paint)))
    assert chosen.refiner == of_paint
    with pytest.raises(ModelUnavailable, match="no refiner of sdxl is served here"):
        choose(options, (1024, 1024), Catalogue((*BOTH.models, of_xl)))


def test_a_lora_of_another_model_is_refused() -> None:
    lora = replace(spec("smile", Kind.LORA, SD15), of="paint15")
    catalogue = Catalogue((*BOTH.models, lora))
    options = {"loras": {"smile": 1}, "inpainting_base_model": "sd15"}
    with pytest.raises(InvalidInput, match="'smile' is made for paint15") as caught:
        choose(parse_options(options), (512, 512), catalogue)
    assert (caught.value.code, caught.value.field) == ("adapter_incompatible", "loras")
    chosen = choose(parse_options({**options, "checkpoint": "paint15"}), (512, 512), catalogue)
    assert chosen.loras == {LoraUse(lora, 1.0)}


@pytest.mark.parametrize(
    ("prompts", "chosen"),
    [
        ({}, []),
        ({"prompt": "badly drawn"}, []),
        ({"prompt": "Bad hands, (bad:1.2)"}, ["bad", "bad hands"]),
        ({"negative_prompt": "bad"}, ["bad"]),
        ({"prompt": "of xl"}, []),
    ],
)
def test_embeddings_are_chosen_by_their_names_in_the_prompts(
    prompts: dict[str, str], chosen: list[str]
) -> None:
    words = (("bad", SD15), ("bad hands", SD15), ("xl", SDXL))
    entries = (spec(name, Kind.EMBEDDING, base) for name, base in words)
    choice = choose(parse_options(prompts), (512, 512), Catalogue((*BOTH.models, *entries)))
    assert [entry.name for entry in choice.embeddings] == chosen


def test_the_lists_of_the_reference() -> None:
    assert {base: len(sizes) for base, sizes in RESOLUTIONS.items()} == {SDXL: 12, SD15: 25}
    assert listed(SDXL).startswith("640x1536, 768x1344, 832x1216")
    assert len(set(RESOLUTIONS[SD15])) == 25
