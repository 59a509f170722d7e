"""What is shown of a run, and the order of the commands."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from training.__main__ import commands
from training.autoencoder import encode
from training.crops import pack
from training.denoiser import Denoiser
from training.portraits import Portrait
from training.preview import Faces, held_out, one_step, preview, repaint


@pytest.fixture(scope="module")
def faces(portraits: list[Portrait], tmp_path_factory: pytest.TempPathFactory) -> Faces:
    folder = tmp_path_factory.mktemp("held")
    pack(portraits[:2], "held", folder, per_portrait=1, seed=0)
    return held_out(folder, 2)


@pytest.fixture(scope="module")
def model() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(vocabulary=736, latents=4).eval()


def test_only_the_faces_count(faces: Faces) -> None:
    assert faces.psnr(torch.where(faces.face > 0, faces.sharp, faces.soft)) == float("inf")
    assert 10 < faces.psnr(faces.soft) < 40


def test_around_the_face_nothing_changes(
    faces: Faces, model: Denoiser, linear: AutoencoderKL
) -> None:
    with torch.no_grad():
        latents = encode(linear, faces.soft)
    face = faces.face[..., ::2, ::2]
    made = repaint(model, latents, torch.randn(latents.shape), face, strength=0.1)
    torch.testing.assert_close(made * (1 - face), latents * (1 - face))
    assert not torch.equal(made, latents)


def test_without_noise_one_step_is_the_input(model: Denoiser) -> None:
    latents = torch.randn(2, 4, 16, 16)
    made = one_step(model, latents, torch.zeros_like(latents), 0)
    torch.testing.assert_close(made, latents, atol=0.2, rtol=0)


def test_the_sheet_has_four_rows(
    faces: Faces, model: Denoiser, linear: AutoencoderKL, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = preview(model, linear, faces, strength=0.1)
    assert sheet.size == (2 * 128, 4 * 128)
    assert capsys.readouterr().out.count("dB") == 3


@pytest.mark.parametrize("ready", [False, True])
def test_crops_are_cut_once(ready: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.__main__.CROPS", tmp_path)
    if ready:
        (tmp_path / "train.jsonl").touch()
        (tmp_path / "variants.jsonl").touch()
    given = argparse.Namespace(
        portraits=Path("p"),
        variants=Path("v"),
        device="cpu",
        bf16=False,
        batch=16,
        steps=10,
        per_portrait=2,
        workers=1,
    )
    names = [command[0] for command in commands(given)]
    assert names.count("crops") == (0 if ready else 2)
    assert names[-1] == "export"
    assert names.index("evaluate") < names.index("denoiser")
