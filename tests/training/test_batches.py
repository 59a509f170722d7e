"""What the UNets are trained on."""

from __future__ import annotations

import pytest
import torch
from training.batches import Batches


def test_batches_follow_their_generator(batches: Batches) -> None:
    first, second = (batches.draw(torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.sharp.shape == first.soft.shape == (4, 4, 64, 64)
    assert first.tokens.shape == (4, 77)
    assert 0.1 < float(first.face.mean()) < 0.9
    torch.testing.assert_close(first.soft, second.soft)
    assert not torch.equal(first.soft, first.sharp)


def test_of_two_crops_the_one_with_the_larger_face_is_drawn(batches: Batches) -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.cat([batches.draw(generator).face for _ in range(25)]).mean((1, 2, 3))
    there = batches.faces.mean((1, 2, 3))
    pairs = torch.cartesian_prod(there, there).amax(1)
    assert pairs.mean() > there.mean()
    assert drawn.mean() == pytest.approx(float(pairs.mean()), rel=0.1)
