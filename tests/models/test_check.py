"""Looking whether models are there, whole, and what their entries say."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Kind, ModelSpec, Source, built_in
from afterdetail.models.check import check, was_never_pulled
from afterdetail.models.store import locate
from afterdetail.options import Base

LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(file: Path, width: int = 768) -> Path:
    down, up = torch.ones(1, width), torch.ones(320, 1)
    save_file({f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}, file)
    return file


def spec_of(path: Path, kind: Kind = Kind.LORA, base: Base | None = Base.SD15) -> ModelSpec:
    return ModelSpec("mine", kind, Source(path=str(path)), base=base)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="the weights of mine are missing"):
        check(spec_of(tmp_path / "gone.safetensors"))


def test_what_the_package_brings_is_in_order() -> None:
    brought = [spec for spec in built_in().models if spec.source.package is not None]
    assert {spec.kind for spec in brought} >= {Kind.BASE, Kind.REFINER, Kind.LORA, Kind.DETECTOR}
    for spec in brought:
        check(spec)


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    file = lora(tmp_path / "line.safetensors")
    spec = replace(spec_of(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    check(spec)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(WeightsError, match="sha256"):
        check(spec)


@pytest.mark.parametrize("kind", [Kind.LORA, Kind.VAE])
def test_a_truncated_file_is_found_without_a_checksum(tmp_path: Path, kind: Kind) -> None:
    file = lora(tmp_path / "line.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged or not whole"):
        check(spec_of(file, kind))


@pytest.mark.parametrize(
    ("kind", "base", "said"),
    [
        (Kind.LORA, Base.SD15, "is a sdxl lora, the catalogue says sd15 lora"),
        (Kind.EMBEDDING, Base.SDXL, "is a sdxl lora, the catalogue says sdxl embedding"),
        (Kind.VAE, Base.SDXL, "is no autoencoder"),
    ],
)
def test_a_wrong_entry_is_found(tmp_path: Path, kind: Kind, base: Base, said: str) -> None:
    with pytest.raises(WeightsError, match=f"mine: .*{said}"):
        check(spec_of(lora(tmp_path / "line.safetensors", 2048), kind, base))


@pytest.mark.parametrize("kind", [Kind.LORA, Kind.EMBEDDING, Kind.DETECTOR])
def test_a_folder_is_none_of_what_is_one_file(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(WeightsError, match=f"is a folder, a {kind} is one file"):
        check(spec_of(tmp_path, kind))


# Folders in the layout of diffusers.


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """``folder("tiny")``: a copy of that embedded model."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(locate(built_in().find(None, name)), tmp_path / name))

    return copy


UNET = "unet/diffusion_pytorch_model.safetensors"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def to_pickle(path: Path) -> None:
    path.rename(path.with_suffix(".bin"))


def to_shards(path: Path) -> None:
    """Two of them, of which one is missing."""
    stem = path.name.removesuffix(".safetensors")
    shards = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    path.rename(path.with_name(shards[0]))
    weights = ", ".join(f'"layer{number}": "{shard}"' for number, shard in enumerate(shards))
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(f'{{"weight_map": {{{weights}}}}}')


@pytest.mark.parametrize(
    ("name", "part", "harm", "said"),
    [
        ("tiny", UNET, cut, "diffusion_pytorch_model.safetensors is damaged or not whole"),
        ("tiny", UNET, delete, "unet has no .safetensors weights"),
        ("tiny", UNET, to_pickle, "unet has no .safetensors weights"),
        ("tiny", UNET, to_shards, "unet has no .safetensors weights, or not all"),
        ("tiny", "unet", delete, "it has no unet"),
        ("tiny", "vae", delete, "lacks vae of sd"),
        ("tiny", "vae/config.json", delete, "config.json is missing"),
        ("tiny", "vae/config.json", cut, "config.json is damaged"),
        ("tiny", "text_encoder/model.safetensors", cut, "model.safetensors is damaged"),
        ("tiny", "tokenizer", delete, "lacks tokenizer of sd"),
        ("tiny", "tokenizer/tokenizer.json", delete, "vocab.json is missing"),
        ("tiny", "scheduler/scheduler_config.json", delete, "scheduler_config.json is missing"),
        ("tiny-xl", "text_encoder", delete, "lacks text_encoder of sd"),
        ("tiny-xl", "text_encoder_2/model.safetensors", cut, "model.safetensors is damaged"),
        ("tiny-xl-refiner", "tokenizer_2", delete, "lacks tokenizer_2 of sd"),
    ],
)
def test_damage_to_a_folder_is_found(
    folder: Callable[[str], Path], name: str, part: str, harm: Callable[[Path], None], said: str
) -> None:
    path = folder(name)
    spec = replace(built_in().find(None, name), source=Source(path=str(path)))
    check(spec)
    harm(path / part)
    with pytest.raises(WeightsError, match=f"{name}.*{said}"):
        check(spec)


@pytest.mark.parametrize(
    ("name", "kind", "base", "said"),
    [
        ("tiny", Kind.BASE, Base.SDXL, "is a sd15 checkpoint, the catalogue says sdxl base"),
        ("tiny-xl", Kind.BASE, Base.SD15, "is a sdxl checkpoint, the catalogue says sd15 base"),
        ("tiny-xl", Kind.REFINER, Base.SDXL, "is a sdxl checkpoint, the catalogue says sdxl ref"),
        (
            "tiny-xl-refiner",
            Kind.BASE,
            Base.SDXL,
            "is a sdxl refiner, the catalogue says sdxl base",
        ),
    ],
)
def test_a_folder_of_something_else_is_found(name: str, kind: Kind, base: Base, said: str) -> None:
    path = locate(built_in().find(None, name))
    vae = built_in().find(None, "tiny-xl-vae")
    with pytest.raises(WeightsError, match=said):
        check(replace(spec_of(path, kind, base), vae=vae))


def test_a_checksum_of_a_folder_means_nothing() -> None:
    tiny = locate(built_in().find(None, "tiny"))
    with pytest.raises(WeightsError, match="is a folder, sha256 is of one file"):
        check(replace(spec_of(tiny, Kind.BASE), sha256="0" * 64))


def test_a_models_autoencoder_is_looked_at_with_it(folder: Callable[[str], Path]) -> None:
    path = folder("tiny")
    vae = spec_of(Path(shutil.move(path / "vae", path.parent / "vae")), Kind.VAE)
    spec = replace(spec_of(path, Kind.BASE), vae=vae)
    check(spec)
    cut(path.parent / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="damaged or not whole"):
        check(spec)


# The hub's cache.

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_in_the_cache_weights_are_compared_with_what_the_hub_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--someone--things"
    snapshot = cache / "snapshots" / COMMIT
    shutil.copytree(locate(built_in().find(None, "tiny")), snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    blob = cache / "blobs" / hashlib.sha256((snapshot / UNET).read_bytes()).hexdigest()
    blob.parent.mkdir()
    (snapshot / UNET).rename(blob)
    (snapshot / UNET).symlink_to(blob)
    spec = ModelSpec("thing", Kind.BASE, Source(hub="someone/things"), base=Base.SD15)
    check(spec)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"sha256 is another; .*afterdetail models pull thing"):
        check(spec)


def test_only_what_is_built_in_need_not_be_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    own = ModelSpec("thing", Kind.BASE, Source(hub="someone/things"), base=Base.SD15)
    specs = [*(built_in().find(None, name) for name in ("sd15", "tiny")), own]
    assert [was_never_pulled(spec) for spec in specs] == [True, False, False]
