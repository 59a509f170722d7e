"""Changing a catalogue of one's own."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from afterdetail.errors import InvalidInput, UnknownName, WeightsError
from afterdetail.models import own
from afterdetail.models.catalogue import Kind, load_catalogue
from afterdetail.models.check import check
from afterdetail.models.entries import Prediction
from afterdetail.options import Base

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def lora(folder: Path, width: int, name: str = "line") -> Path:
    """A LoRA of the true width, one layer of it."""
    key = f"lora_unet_{ATTENTION}"
    tensors = {f"{key}.lora_down.weight": torch.ones(1, width)}
    tensors |= {f"{key}.lora_up.weight": torch.ones(320, 1), f"{key}.alpha": torch.tensor(1.0)}
    return saved(folder / f"{name}.safetensors", tensors)


def saved(
    file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Path:
    save_file(tensors, file, metadata)
    return file


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sd15", (Kind.BASE, Base.SD15)),
        ("sd15-inpainting", (Kind.BASE, Base.SD15)),
        ("sdxl", (Kind.BASE, Base.SDXL)),
        ("refiner", (Kind.REFINER, Base.SDXL)),
    ],
)
def test_checkpoints_are_recognised(
    save: Callable[[str], Any], catalogue: Path, kind: str, expected: tuple[Kind, Base]
) -> None:
    spec = own.add(catalogue, save(kind).file)
    assert (spec.kind, spec.base) == expected
    check(spec)


@pytest.mark.parametrize(
    ("settings", "prediction"),
    [
        (None, None),
        ("model:\n  params:\n    channels: 4\n", None),
        ('model:\n  params:\n    parameterization: "v"\n    channels: 4\n', Prediction.VELOCITY),
        ("model:\n  params:\n    parameterization: eps\n", None),
    ],
)
def test_settings_beside_a_checkpoint_say_what_it_predicts(
    sd15: Any, tmp_path: Path, settings: str | None, prediction: Prediction | None
) -> None:
    file = Path(shutil.copy(sd15.file, tmp_path / "mine.safetensors"))
    if settings:
        file.with_suffix(".yaml").write_text(settings, encoding="utf-8")
    assert own.add(tmp_path / "models.toml", file).prediction is prediction


@pytest.mark.parametrize(("width", "base"), [(768, Base.SD15), (2048, Base.SDXL)])
def test_loras_are_recognised(tmp_path: Path, catalogue: Path, width: int, base: Base) -> None:
    spec = own.add(catalogue, lora(tmp_path, width))
    assert (spec.name, spec.kind, spec.base) == ("line", Kind.LORA, base)


@pytest.mark.parametrize(
    ("tensors", "base"),
    [
        ({"emb_params": torch.ones(3, 768)}, Base.SD15),
        ({"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}, Base.SDXL),
    ],
)
def test_embeddings_are_recognised(
    tmp_path: Path, catalogue: Path, tensors: dict[str, torch.Tensor], base: Base
) -> None:
    spec = own.add(catalogue, saved(tmp_path / "bad hands.safetensors", tensors))
    assert (spec.name, spec.kind, spec.base) == ("bad hands", Kind.EMBEDDING, base)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x": torch.ones(1)}, "neither a checkpoint"),
        ({"double_blocks.0.x": torch.ones(1)}, "a Flux checkpoint"),
        ({"joint_blocks.0.x": torch.ones(1)}, "a Stable Diffusion 3 checkpoint"),
        ({"control_model.x": torch.ones(1)}, "a ControlNet"),
        ({f"lora_unet_{ATTENTION}.lora_down.weight": torch.ones(1, 1024)}, "text of width 1024"),
    ],
)
def test_other_files_change_nothing(
    tmp_path: Path, catalogue: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(WeightsError, match=said):
        own.add(catalogue, saved(tmp_path / "other.safetensors", tensors))
    assert not catalogue.exists()


def test_the_second_of_a_base_is_a_checkpoint(sd15: Any, catalogue: Path) -> None:
    own.add(catalogue, sd15.file, name="first")
    assert own.add(catalogue, sd15.file, name="second").kind is Kind.CHECKPOINT
    assert load_catalogue(catalogue).bases()[Base.SD15].name == "first"


def test_a_comment_and_other_entries_stay(tmp_path: Path, catalogue: Path) -> None:
    before = '# mine\n[[model]]\nname = "a"\nkind = "base"\nbase = "sd15"\npath = "a"  # here\n'
    catalogue.write_text(before)
    own.add(catalogue, lora(tmp_path, 768))
    assert catalogue.read_text().startswith(before)
    own.remove(catalogue, "line")
    assert catalogue.read_text().strip() == before.strip()


@pytest.mark.parametrize("name", ["line", "../line", "", "-x"])
def test_names_are_free_and_no_paths(tmp_path: Path, catalogue: Path, name: str) -> None:
    own.add(catalogue, lora(tmp_path, 768))
    before = catalogue.read_text()
    with pytest.raises(InvalidInput, match="--name"):
        own.add(catalogue, lora(tmp_path, 768, "-"), name=name)
    assert catalogue.read_text() == before


def test_a_copy_goes_with_its_entry(tmp_path: Path, catalogue: Path) -> None:
    original = lora(tmp_path, 768)
    copy = Path(str(own.add(catalogue, original, copy=True).source.path))
    assert copy == tmp_path / "models" / "line.safetensors"
    assert copy.read_bytes() == original.read_bytes()
    own.remove(catalogue, "line")
    assert not copy.exists()
    assert original.exists()


@pytest.mark.parametrize("folder", [".", "models"])
def test_a_linked_file_stays(tmp_path: Path, catalogue: Path, folder: str) -> None:
    """Wherever it is: ``models`` is where copies go, and where many keep their originals."""
    (tmp_path / folder).mkdir(exist_ok=True)
    file = lora(tmp_path / folder, 768)
    own.add(catalogue, file)
    own.remove(catalogue, "line")
    assert file.exists()
    assert "line" not in load_catalogue(catalogue).names()


def test_a_copy_that_another_entry_has_too_stays(tmp_path: Path, catalogue: Path) -> None:
    copy = Path(str(own.add(catalogue, lora(tmp_path, 768), copy=True).source.path))
    own.add(catalogue, copy, name="again")
    own.remove(catalogue, "line")
    assert copy.exists()
    own.remove(catalogue, "again")
    assert copy.exists()


def test_nothing_outside_the_folder_of_copies_is_deleted(tmp_path: Path, catalogue: Path) -> None:
    """A catalogue may be a stranger's."""
    file = lora(tmp_path, 768)
    entry = '[[model]]\nname = "a"\nkind = "lora"\nbase = "sd15"\npath = "{}"\ncopied = true\n'
    catalogue.write_text(entry.format(file.name))
    own.remove(catalogue, "a")
    assert file.exists()


@pytest.mark.parametrize(
    ("metadata", "words", "licence"),
    [
        ({}, (), "unknown"),
        ({"modelspec.trigger_phrase": " ", "modelspec.license": ""}, (), "unknown"),
        (
            {"modelspec.trigger_phrase": "fr3ckles, skin", "modelspec.license": "CC-BY-4.0"},
            ("fr3ckles, skin",),
            "CC-BY-4.0",
        ),
        ({"modelspec.trigger_phrase": 'a "b"\n\x1b[31m\x7f\\c'}, ('a "b" [31m\\c',), "unknown"),
        ({"modelspec.trigger_phrase": "x" * 10_000}, ("x" * 300,), "unknown"),
    ],
)
def test_what_a_file_says_of_itself_is_written_down(
    tmp_path: Path, catalogue: Path, metadata: dict[str, str], words: tuple[str, ...], licence: str
) -> None:
    tensors = {"emb_params": torch.ones(1, 768)}
    spec = own.add(catalogue, saved(tmp_path / "word.safetensors", tensors, metadata))
    assert (spec.trigger_words, spec.licence) == (words, licence)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WeightsError, match="the disk is full"):
        own.add(catalogue, lora(tmp_path, 768), copy=True)
    assert not catalogue.exists()
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("name", ["nothing", "face_full_mediapipe"])
def test_only_own_entries_are_removed(tmp_path: Path, catalogue: Path, name: str) -> None:
    own.add(catalogue, lora(tmp_path, 768))
    with pytest.raises(UnknownName):
        own.remove(catalogue, name)
