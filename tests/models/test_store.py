"""Where models lie and what of a repository is needed."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import pytest

from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Kind, ModelSpec, Source, built_in
from afterdetail.models.store import locate, needed_files, pull, verify

HUB = runpy.run_path(str(Path(__file__).with_name("hub.py")))
DIFFUSERS, in_cache = HUB["DIFFUSERS"], HUB["in_cache"]


@pytest.mark.parametrize("name", ["tiny", "face_full_mediapipe", "hand_mediapipe"])
def test_what_the_package_ships_is_there(name: str) -> None:
    assert locate(built_in().find(None, name)).exists()


def test_a_file_of_the_users_is_where_he_says(tmp_path: Path) -> None:
    (tmp_path / "own.pt").touch()
    spec = ModelSpec("own", Kind.DETECTOR, Source(path=str(tmp_path / "own.pt")))
    assert locate(spec) == tmp_path / "own.pt"
    assert pull(spec) == tmp_path / "own.pt"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Source(path="/nowhere/mine.pt"),
            "no /nowhere/mine.pt; put it there or mend the catalogue",
        ),
        (Source(package="weights/gone.tflite"), "gone.tflite; reinstall afterdetail"),
    ],
)
def test_a_missing_file_says_what_to_do(source: Source, message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message) as error:
        locate(ModelSpec("mine", Kind.DETECTOR, source))
    assert error.value.public == "mine is not on this server"


def test_checksums_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    source = Source(path=str(path))
    verify(ModelSpec("own", Kind.DETECTOR, source), path)
    verify(ModelSpec("own", Kind.DETECTOR, source, sha256=right), path)
    with pytest.raises(WeightsError, match=r"own\.pt is not the own of the catalogue: sha256"):
        verify(ModelSpec("own", Kind.DETECTOR, source, sha256="0" * 64), path)
    with pytest.raises(WeightsError, match="replace it or mend the catalogue"):
        pull(ModelSpec("own", Kind.DETECTOR, source, sha256="0" * 64))


@pytest.mark.parametrize(
    ("gone", "there"),
    [
        ([], True),
        (["safety_checker/model.safetensors", "everything.safetensors"], True),
        (["unet/diffusion_pytorch_model.fp16.safetensors"], True),
        (["model_index.json"], False),
        (["tokenizer/vocab.json"], False),
        (
            [
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "unet/diffusion_pytorch_model.safetensors",
            ],
            False,
        ),
    ],
)
def test_a_folder_is_there_when_each_component_is(
    gone: list[str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {name: data for name, data in DIFFUSERS.items() if name not in gone}
    snapshot = in_cache(tmp_path, files)
    spec = ModelSpec("thing", Kind.BASE, Source(hub="someone/things"))
    if there:
        assert locate(spec) == snapshot
    else:
        with pytest.raises(ModelUnavailable, match="afterdetail models pull thing"):
            locate(spec)


REPOSITORY = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/deep/model.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/openvino_model.bin",
    "text_encoder/flax_model.msgpack",
    "safety_checker/model.safetensors",
]


def test_only_what_repainting_loads_is_needed() -> None:
    components = ["scheduler", "tokenizer", "unet", "vae", "text_encoder"]
    assert needed_files([], []) == ["model_index.json"]
    assert needed_files(REPOSITORY, components) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
    ]
