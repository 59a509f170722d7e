"""What every training run shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training.loop import Plan, Run
from training.muon import orthogonal


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.1), (9, 1.0), (50, 1.0), (60, 1.0), (80, 0.5), (100, 0.0)]
)
def test_the_rate_rises_stays_and_falls(step: int, share: float) -> None:
    plan = Plan(steps=100, rate=0.2, warmup=10, decay=0.4)
    assert plan.rate_at(step) == pytest.approx(0.2 * share)


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_an_orthogonal_update_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.3
    assert values.max() < 1.3


def _run(path: Path, steps: int) -> Run:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    run = Run(model, Plan(steps, rate=0.03, warmup=1, decay=0.01, save_every=5), path, seed=9)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randn(16, 3, generator=generator)
        error: Tensor = model(rows)[:, 0] - rows.sum(1)
        return error.square().mean()

    run.train(loss)
    return run


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = _run(tmp_path / "whole.pt", 20)
    _run(tmp_path / "parts.pt", 10)
    parts = _run(tmp_path / "parts.pt", 20)
    assert parts.step == whole.step == 20
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value)
        torch.testing.assert_close(parts.average[name], whole.average[name])


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run = _run(tmp_path / "run.pt", 300)
    rows = torch.randn(256, 3, generator=torch.Generator().manual_seed(4))
    run.model.load_state_dict(run.average)
    assert (run.model(rows)[:, 0] - rows.sum(1)).square().mean() < 0.5
