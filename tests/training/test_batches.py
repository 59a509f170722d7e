"""What the UNets are trained on."""

from __future__ import annotations

import torch
from training.batches import Batches


def test_batches_follow_their_generator(batches: Batches) -> None:
    first, second = (batches.draw(torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.sharp.shape == first.soft.shape == (4, 4, 64, 64)
    assert first.tokens.shape == (4, 77)
    assert 0.1 < float(first.face.mean()) < 0.9
    torch.testing.assert_close(first.soft, second.soft)
    assert not torch.equal(first.soft, first.sharp)
