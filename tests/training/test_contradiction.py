"""Degraded faces that differ from what their captions say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.contradiction import ToldBatches, blotted, lightened, tinted


@torch.no_grad()
def test_blots_tints_and_light_keep_what_they_should() -> None:
    latents = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(blotted(latents, 1), latents)
    torch.testing.assert_close(blotted(latents, 8).mean(), latents.mean(), atol=0.02, rtol=0)
    other = tinted(latents, torch.Generator().manual_seed(2))
    assert torch.equal(other[:, 3], latents[:, 3])
    assert (other[:, :3] - latents[:, :3]).abs().mean() > 0.1
    face = torch.zeros(2, 1, 64, 64)
    face[..., 20:44, 20:44] = 1
    moved = lightened(latents, face, torch.tensor([0.0, 2.0])) - latents
    assert moved[0].abs().max() == moved[1, 1:].abs().max() == 0
    assert moved[1, 0, 32, 32] == pytest.approx(2) and moved[1, 0, 0, 0] == 0


@pytest.mark.usefixtures("autoencoder")
def test_only_rows_with_a_caption_are_contradicted(
    crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToldBatches, "share", 0.0)
    plain = ToldBatches(crops, 16).draw(torch.Generator().manual_seed(1))
    monkeypatch.setattr(ToldBatches, "share", 1.0)
    batches = ToldBatches(crops, 16)
    other = batches.draw(torch.Generator().manual_seed(1))
    changed = (other.soft != plain.soft).flatten(1).any(1)
    told = (plain.tokens != batches.tokens[-1]).any(1)
    assert torch.equal(changed, told) and 0 < int(told.sum()) < 16
    assert torch.equal(other.sharp, plain.sharp)
