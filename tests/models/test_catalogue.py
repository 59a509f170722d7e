"""What a catalogue may say, and how it is told that it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.models.catalogue import (
    Catalogue,
    Kind,
    Outline,
    Source,
    built_in,
    load_catalogue,
)
from afterdetail.options import Base
from afterdetail.types import parse_size

DETECTORS = {
    "face_full_mediapipe",
    "face_short_mediapipe",
    "face_mesh_mediapipe",
    "eyes_mesh_mediapipe",
    "hand_mediapipe",
    "face_yolov8n",
    "face_yolov8s",
    "hand_yolov8n",
    "person_yolov8n-seg",
}


def load(folder: Path, text: str) -> Catalogue:
    path = folder / "models.toml"
    path.write_text(text)
    return load_catalogue(path)


def entry(**keys: str) -> str:
    """One table; values are TOML."""
    return "[[model]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_an_empty_file_has_the_built_in_detectors_and_serves_nothing(tmp_path: Path) -> None:
    catalogue = load(tmp_path, "")
    assert set(catalogue.names()) == DETECTORS
    assert catalogue.bases() == {}


@pytest.mark.parametrize(
    ("models", "bases"),
    [
        ("tiny", {Base.SD15: "tiny", Base.SDXL: "tiny-xl"}),
        ("tiny-xl", {Base.SDXL: "tiny-xl"}),
        ("sd15", {Base.SD15: "sd15"}),
        ("sd15,sdxl", {Base.SD15: "sd15", Base.SDXL: "sdxl"}),
        (" sdxl , tiny ", {Base.SD15: "tiny", Base.SDXL: "sdxl"}),
    ],
)
def test_names_of_bases_say_what_is_served(models: str, bases: dict[Base, str]) -> None:
    catalogue = load_catalogue(models)
    assert {base: spec.name for base, spec in catalogue.bases().items()} == bases
    assert set(catalogue.names(Kind.BASE)) == set(bases.values())
    assert set(catalogue.names(Kind.DETECTOR)) == DETECTORS


@pytest.mark.parametrize(
    ("models", "others"),
    [
        ("sd15", set()),
        ("sdxl", {"sdxl-refiner"}),
        ("sdxl,tiny", {"sdxl-refiner", "tiny-tan"}),
        ("tiny", {"tiny-tan", "tiny-xl-tan", "tiny-xl-refiner"}),
    ],
)
def test_what_is_made_for_a_base_is_there_with_it(models: str, others: set[str]) -> None:
    catalogue = load_catalogue(models)
    assert {*catalogue.names(Kind.REFINER), *catalogue.names(Kind.LORA)} == others


@pytest.mark.parametrize("models", ["", ",", "sd16", "face_yolov8n", "sd15;sdxl", "../tiny"])
def test_unknown_bases_are_named(models: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown base .*; (closest|known): \w+") as error:
        load_catalogue(models)
    assert error.value.field == "models"


def test_two_bases_of_one_kind_cannot_both_be_served() -> None:
    with pytest.raises(InvalidInput, match="'tiny' and 'sd15' are both bases of sd15"):
        load_catalogue("tiny,sd15")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", {(128, 128)}),
        ("tiny-xl", {(128, 128)}),
        ("sd15", {(512, 512), (448, 576), (576, 448), (384, 704), (704, 384)}),
        (
            "sdxl",
            {
                (640, 1536),
                (768, 1344),
                (832, 1216),
                (896, 1152),
                (1024, 1024),
                (1152, 896),
                (1216, 832),
                (1344, 768),
                (1536, 640),
            },
        ),
    ],
)
def test_built_in_bases_repaint_at_the_sizes_of_the_contract(
    name: str, sizes: set[tuple[int, int]]
) -> None:
    assert set(built_in().find(Kind.BASE, name).sizes) == sizes


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("sd15", Source(hub="stable-diffusion-v1-5/stable-diffusion-v1-5")),
        ("sdxl", Source(hub="stabilityai/stable-diffusion-xl-base-1.0")),
        ("sdxl-refiner", Source(hub="stabilityai/stable-diffusion-xl-refiner-1.0")),
        (
            "sdxl-vae-fp16",
            Source(hub="madebyollin/sdxl-vae-fp16-fix", file="diffusion_pytorch_model.safetensors"),
        ),
    ],
)
def test_built_in_models_come_from_the_hub(name: str, source: Source) -> None:
    assert built_in().find(None, name).source == source


@pytest.mark.parametrize("name", ["face_yolov8n", "octoai:face_yolov8n"])
def test_the_hosts_prefix_is_ignored(name: str) -> None:
    assert built_in().find(Kind.DETECTOR, name).name == "face_yolov8n"


@pytest.mark.parametrize(
    "name", ["face_yolov8", "../face_yolov8n", "/etc/passwd", "", "octoai:octoai:tiny", "tiny"]
)
def test_unknown_names_blame_the_field(name: str) -> None:
    with pytest.raises(UnknownName, match="unknown detector") as error:
        built_in().find(Kind.DETECTOR, name, field="detector")
    assert error.value.field == "detector"


def test_a_detector_of_the_users(tmp_path: Path) -> None:
    catalogue = load(
        tmp_path,
        entry(
            name='"cats"',
            kind='"detector"',
            file='"weights/cats.pt"',
            classes='["cat", 3]',
            outline='"segmentation"',
            label='"cat"',
        ),
    )
    cats = catalogue.find(Kind.DETECTOR, "cats")
    assert cats.source == Source(path=str((tmp_path / "weights" / "cats.pt").resolve()))
    assert (cats.classes, cats.outline, cats.label) == (("cat", 3), Outline.SEGMENTATION, "cat")
    assert set(catalogue.names()) == DETECTORS | {"cats"}


def test_an_entry_of_the_users_goes_before_the_built_in_one(tmp_path: Path) -> None:
    catalogue = load(tmp_path, entry(name='"face_yolov8n"', kind='"detector"', path='"/a/b.pt"'))
    assert catalogue.find(Kind.DETECTOR, "face_yolov8n").source.path == "/a/b.pt"
    assert set(catalogue.names()) == DETECTORS


def test_models_of_every_kind(tmp_path: Path) -> None:
    catalogue = load(
        tmp_path,
        entry(name='"mine"', kind='"base"', base='"sdxl"', hub='"me/mine"', revision='"v2"')
        + entry(name='"photo"', kind='"checkpoint"', base='"sdxl"', path='"photo.safetensors"')
        + entry(name='"small"', kind='"checkpoint"', base='"sd15"', path='"s"', sizes='["64x128"]')
        + entry(name='"fine"', kind='"refiner"', base='"sdxl"', hub='"me/fine"')
        + entry(
            name='"freckles"',
            kind='"lora"',
            base='"sd15"',
            hub='"me/loras"',
            file='"freckles.safetensors"',
            sha256=f'"{"a" * 64}"',
            trigger_words='["freckles"]',
        )
        + entry(name='"bad hands"', kind='"embedding"', base='"sd15"', path='"e.safetensors"'),
    )
    assert catalogue.find(Kind.BASE, "mine").source == Source(hub="me/mine", revision="v2")
    assert catalogue.find(Kind.CHECKPOINT, "photo").sizes == built_in().find(None, "sdxl").sizes
    assert catalogue.find(Kind.CHECKPOINT, "small").sizes == ((64, 128),)
    lora = catalogue.find(Kind.LORA, "octoai:freckles")
    assert lora.source == Source(hub="me/loras", file="freckles.safetensors")
    assert (lora.sizes, lora.sha256, lora.trigger_words) == ((), "a" * 64, ("freckles",))
    assert catalogue.find(None, "bad hands").kind is Kind.EMBEDDING
    assert {base: spec.name for base, spec in catalogue.bases().items()} == {Base.SDXL: "mine"}


GOOD = {"name": '"x"', "kind": '"detector"', "path": '"x.pt"'}
LORA = {"name": '"x"', "kind": '"lora"', "base": '"sd15"', "path": '"x.safetensors"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 3", "'model': a catalogue is made of"),
        ("name = 'x'", "'name': a catalogue is made of"),
        ("[[model]", "is not TOML"),
        ("[[model]]", "model 'number 1': name: Field required"),
        (entry(**GOOD) + entry(**GOOD), "model 'x': name: 2 entries have it"),
        (entry(**{**GOOD, "name": '"a/b"'}), "model 'a/b': name: a name begins with"),
        (entry(**{**GOOD, "name": r'"a\\b"'}), "name: a name begins with"),
        (entry(**{**GOOD, "name": '"../a"'}), "name: a name begins with"),
        (entry(**{**GOOD, "name": '"a,b"'}), "name: a name begins with"),
        (entry(**{**GOOD, "name": "3"}), "model 3: name: Input should be a valid string"),
        (entry(**{**GOOD, "kind": '"face"'}), "model 'x': kind: Input should be 'base'"),
        (entry(**{**GOOD, "base": '"sd15"'}), "model 'x': entry: a detector has no base"),
        (entry(**{**GOOD, "hub": '"a/b"'}), "model 'x': source: give exactly one of"),
        (entry(**{**GOOD, "file": '"b"'}), "model 'x': source: file and revision belong to a hub"),
        (entry(name='"x"', kind='"detector"'), "model 'x': source: give exactly one of"),
        (entry(**GOOD, urls='"x"'), "model 'x': urls: Extra inputs are not permitted"),
        (entry(**GOOD, sha256='"abc"'), "model 'x': sha256: String should match"),
        (entry(**GOOD, classes="[1.5]"), "model 'x': classes.0"),
        (entry(**GOOD, outline='"polygon"'), "model 'x': outline: Input should be 'box' or"),
        (entry(**GOOD, sizes='["512"]'), "model 'x': sizes: '512' is not a size like '512x768'"),
        (entry(name='"x"', kind='"detector"', hub='"../a/b"'), "model 'x': hub: String should"),
        (entry(name='"x"', kind='"detector"', package='"../a"'), "model 'x': entry: .* no '..'"),
        (entry(**{**LORA, "base": '"sd3"'}), "model 'x': base: Input should be 'sdxl' or 'sd15'"),
        (entry(**{**LORA, "path": '"x.pt"'}), "x.pt: diffusion weights must be .safetensors"),
        (entry(**{**LORA, "path": '"x.CKPT"'}), "x.CKPT: diffusion weights must be .safetensors"),
        (entry(name='"x"', kind='"lora"', path='"x"'), "model 'x': entry: a lora has a base"),
        (entry(**GOOD, copied='"yes"'), "model 'x': copied: Input should be a valid boolean"),
        (
            entry(name='"x"', kind='"detector"', hub='"a/b"', file='"c"', copied="true"),
            "model 'x': entry: only a file at a path can be a copy",
        ),
        (entry(**GOOD, of='"y"'), "model 'x': entry: only a refiner or a lora is made for one"),
        (entry(**LORA, of='"y"'), "model 'x': of: no base or checkpoint 'y' of sd15; known: none"),
    ],
)
def test_a_wrong_catalogue_is_told_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        load(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.public == "the model catalogue is wrong"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.DETECTOR])
@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".CKPT"])
@pytest.mark.parametrize("source", ["path", "file", "hub"])
def test_pickles_are_no_diffusion_weights_wherever_they_lie(
    kind: Kind, ending: str, source: str, tmp_path: Path
) -> None:
    place = (
        {source: f'"x{ending}"'} if source != "hub" else {"hub": '"a/b"', "file": f'"x{ending}"'}
    )
    with pytest.raises(InvalidInput, match=f"x{ending}: diffusion weights must be .safetensors"):
        load(tmp_path, entry(name='"x"', kind=f'"{kind}"', base='"sd15"', **place))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read .*gone\.toml: No such file"):
        load_catalogue(tmp_path / "gone.toml")


@pytest.mark.parametrize(("text", "size"), [("640x1536", (640, 1536)), ("8x8", (8, 8))])
def test_sizes_are_width_by_height(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "640", "640X1536", "0x8", "-1x8", "8 x 8", "640x1536x3"])
def test_other_texts_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


VAE = '[[model]]\nname = "better"\nkind = "vae"\nbase = "{}"\nfile = "better.safetensors"\n'
NAMING = (
    '[[model]]\nname = "mine"\nkind = "base"\nbase = "sdxl"\nfile = "m.safetensors"\nvae = "{}"\n'
)


@pytest.mark.parametrize(("name", "built"), [("better", False), ("sdxl-vae-fp16", True)])
def test_a_model_may_name_its_autoencoder(tmp_path: Path, name: str, built: bool) -> None:
    file = tmp_path / "models.toml"
    file.write_text(NAMING.format(name) + VAE.format("sdxl"))
    vae = load_catalogue(file).find(Kind.BASE, "mine").vae
    assert vae is not None
    assert (vae.name, vae.kind) == (name, Kind.VAE)
    assert (vae.source.hub is not None) == built


@pytest.mark.parametrize(
    ("name", "base"), [("worse", "sdxl"), ("mine", "sdxl"), ("better", "sd15")]
)
def test_an_autoencoder_that_is_none_is_refused(tmp_path: Path, name: str, base: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(NAMING.format(name) + VAE.format(base))
    with pytest.raises(InvalidInput, match=f"'mine': vae: no '{name}' of sdxl; known: .*fp16"):
        load_catalogue(file)


def test_the_built_in_sdxl_has_a_refiner_and_an_autoencoder_for_16_bit() -> None:
    base, refiner = (built_in().find(None, name) for name in ("sdxl", "sdxl-refiner"))
    assert load_catalogue("sdxl").of(Kind.REFINER, Base.SDXL) == (refiner,)
    assert base.vae == refiner.vae == built_in().find(Kind.VAE, "sdxl-vae-fp16")
    assert base.sizes == refiner.sizes
