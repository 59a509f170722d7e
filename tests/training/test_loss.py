"""What the UNets are trained for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from training.batches import Batch
from training.loss import RESTORED, ROLLED, DenoiserLoss, Silence, new_scheduler


def _batch(count: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    face = torch.zeros(count, 1, 64, 64)
    face[..., 16:48, 16:48] = 1
    sharp, soft = (torch.randn(count, 4, 64, 64, generator=generator) for _ in range(2))
    return Batch(sharp, soft, face, torch.zeros(count, 77, dtype=torch.long))


class Oracle(nn.Module):
    """Knows the sharp picture."""

    def __init__(self, sharp: Tensor) -> None:
        super().__init__()
        self.sharp = sharp
        self.alphas = new_scheduler().alphas_cumprod

    def forward(self, noised: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        assert tokens.shape[1] == 77
        alpha = self.alphas[steps][:, None, None, None]
        noise: Tensor = (noised - alpha.sqrt() * self.sharp[: len(noised)]) / (1 - alpha).sqrt()
        return noise


@pytest.mark.parametrize("seed", range(5))
def test_only_the_sharp_picture_has_no_loss(seed: int) -> None:
    batch = _batch(8)
    generator = torch.Generator().manual_seed(seed)
    assert float(DenoiserLoss(Oracle(batch.sharp))(batch, generator)) < 1e-4
    assert float(DenoiserLoss(Oracle(batch.soft))(batch, generator)) > 0.1


def test_ddim_walks_through_the_mixtures_that_are_trained_on() -> None:
    """At the noise level r, the share r / r0 of the error is left."""
    batch, scheduler = _batch(1), new_scheduler()
    scheduler.set_timesteps(20)
    steps = scheduler.timesteps[-8:]
    alphas = scheduler.alphas_cumprod
    noise = torch.randn(batch.sharp.shape, generator=torch.Generator().manual_seed(3))
    latents = scheduler.add_noise(batch.soft, noise, steps[:1])
    oracle = Oracle(batch.sharp)
    for step in steps[:5]:
        predicted = oracle(latents, step[None], batch.tokens)
        latents = scheduler.step(predicted, step, latents).prev_sample
    ratio = (1 / alphas - 1).sqrt()
    left = ratio[steps[5]] / ratio[steps[0]]
    mixed = batch.sharp + left * (batch.soft - batch.sharp)
    expected = scheduler.add_noise(mixed, noise, steps[5:6])
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [2, 3])
def test_steps_of_the_models_own_are_those_of_ddim(steps: int) -> None:
    batch, scheduler = _batch(2), new_scheduler()
    scheduler.set_timesteps(steps)
    times = list(scheduler.timesteps[:, None].expand(steps, 2))
    oracle = Oracle(batch.sharp + 0.3)
    noise = torch.randn(batch.sharp.shape, generator=torch.Generator().manual_seed(3))
    moved = DenoiserLoss(oracle)._roll(batch.soft, noise, times, batch, torch.ones(2))
    expected = scheduler.add_noise(batch.soft, noise, times[0])
    for time in times[:-1]:
        predicted = oracle(expected, time, batch.tokens)
        expected = scheduler.step(predicted, time[0], expected).prev_sample
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-4)


class Told(nn.Module):
    """Finds as much noise as the caption says, in tenths."""

    tokens: Tensor

    def forward(self, noised: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        self.tokens = tokens
        return torch.zeros_like(noised) + tokens[:, :1, None, None] / 10


def _silent(batch: Batch) -> Batch:
    return replace(batch, tokens=torch.zeros_like(batch.tokens))


def test_guided_steps_do_so_many_times_what_the_caption_says() -> None:
    batch = _batch(2)
    noise = torch.randn(batch.sharp.shape, generator=torch.Generator().manual_seed(3))
    times = [torch.tensor([time, time]) for time in (600, 300, 100)]

    def led(loss: DenoiserLoss, tokens: list[int], scales: list[float]) -> Tensor:
        said = replace(batch, tokens=torch.tensor(tokens)[:, None].expand(2, 77))
        return loss._roll(batch.soft, noise, times, said, torch.tensor(scales))

    guided = led(DenoiserLoss(Told(), silence=_silent), [3, 3], [1.0, 5.0])
    torch.testing.assert_close(guided, led(DenoiserLoss(Told()), [3, 15], [1.0, 1.0]))


@pytest.mark.parametrize(("silence", "least", "most"), [(None, 0, 0), (_silent, 5, 20)])
def test_half_of_those_that_were_guided_go_on_without_their_captions(
    silence: Silence | None, least: int, most: int
) -> None:
    batch = _batch(64)
    batch = replace(batch, tokens=batch.tokens + 3)
    loss = DenoiserLoss(model := Told(), silence=silence)
    loss(batch, torch.Generator().manual_seed(1))
    silent = (model.tokens == 0).all(1)
    rolled = round(ROLLED * round(RESTORED * 64))
    assert least <= int(silent[:rolled].sum()) <= most
    assert not silent[rolled:].any()


def test_what_is_seen_counts_for_restored_rows_where_the_loss_counts() -> None:
    batch = _batch(8)

    def seen(made: Tensor, truth: Tensor, face: Tensor, _: torch.Generator) -> Tensor:
        assert len(made) == len(face) == 7
        return (made - truth).square().mean((1, 2, 3))

    def difference(model: nn.Module) -> float:
        values = [
            float(DenoiserLoss(model, seen=eye)(batch, torch.Generator().manual_seed(1)))
            for eye in (None, seen)
        ]
        return values[1] - values[0]

    assert abs(difference(Oracle(batch.sharp))) < 1e-4
    assert difference(Oracle(batch.soft)) > 0.1


@pytest.mark.parametrize(("below", "left"), [(1000, False), (800, True)])
def test_a_repaint_at_full_strength_begins_with_nothing_of_the_face(below: int, left: bool) -> None:
    batch = _batch(64)
    batch = replace(batch, sharp=batch.sharp + 100, soft=batch.soft + 100)
    loss = DenoiserLoss(met := First(), below=below, restored=1.0, rolled=1.0)
    loss.erased = float(loss.erased > 0)
    loss(batch, torch.Generator().manual_seed(1))
    assert (float((met.noised * batch.face[:1]).mean()) > 1) == left
    assert left or bool((met.steps >= 900).all())


class First(nn.Module):
    """Keeps what it is shown first, and finds no noise."""

    noised: Tensor
    steps: Tensor

    def forward(self, noised: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        if not hasattr(self, "noised"):
            self.noised, self.steps = noised, steps
        return torch.zeros_like(noised)
