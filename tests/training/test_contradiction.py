"""Degraded faces that differ from what their captions say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.contradiction import AGED, ToldBatches, Variants, blotted, lightened


@torch.no_grad()
def test_blots_and_light_keep_what_they_should() -> None:
    latents = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(blotted(latents, 1), latents)
    torch.testing.assert_close(blotted(latents, 8).mean(), latents.mean(), atol=0.02, rtol=0)
    face = torch.zeros(2, 1, 64, 64)
    face[..., 20:44, 20:44] = 1
    moved = lightened(latents, face, torch.tensor([0.0, 2.0])) - latents
    assert moved[0].abs().max() == moved[1, 1:].abs().max() == 0
    assert moved[1, 0, 32, 32] == pytest.approx(2) and moved[1, 0, 0, 0] == 0


@pytest.mark.usefixtures("autoencoder")
def test_one_variant_of_a_head_is_seen_and_another_asked_for(varied: Path) -> None:
    batches = Variants(varied, 4)
    generator = torch.Generator().manual_seed(1)
    drawn = [batches.pair(generator) for _ in range(400)]
    # "bald" cannot be unsaid, so nobody asks for what lacks it
    pairs = {(0, 1), (0, 2), (2, 0), (2, 1), (3, 4), (3, 5), (5, 3), (5, 4)}
    assert set(drawn) == pairs
    aged = {pair for pair in pairs if {2, 5} & set(pair)}
    share = sum(pair in aged for pair in drawn) / len(drawn)
    assert share == pytest.approx(AGED + (1 - AGED) * 6 / 8, abs=0.05)
    assert all("smiling" in batches.asked(0, 1, generator) for _ in range(20))


@pytest.mark.usefixtures("autoencoder")
def test_around_the_box_the_seen_one_stays(varied: Path) -> None:
    batches = Variants(varied, 16)
    first, again = (batches.draw(torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first.sharp, again.sharp) and torch.equal(first.tokens, again.tokens)
    whole = first.face.flatten(1).all(1)
    assert 0 < int(whole.sum()) < 16
    far = (first.sharp - first.soft).abs().mean(1, keepdim=True)
    inside = (far * first.face).sum() / first.face.sum()
    outside = (far * (1 - first.face)).sum() / (1 - first.face).sum()
    assert outside < 0.7 * inside


@pytest.mark.usefixtures("autoencoder")
def test_a_batch_begins_with_variants(varied: Path) -> None:
    batches = ToldBatches(varied, 16)
    batch = batches.draw(torch.Generator().manual_seed(1))
    asked = batches.variants.draw(torch.Generator().manual_seed(1))
    assert len(batch.tokens) == 16 and len(asked.tokens) == 4
    assert torch.equal(batch.soft[:4], asked.soft)
