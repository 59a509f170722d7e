"""What every training run shares: options, workers, schedule, averaged weights, checkpoints."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.parameter import Parameter
from torch.optim import Optimizer
from tqdm import tqdm

from training.muon import Muon

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train. ``decay`` is the share of the steps the rate falls over."""

    steps: int
    rate: float
    warmup: int = 50
    decay: float = 0.35
    average: float = 0.998
    save_every: int = 100

    def rate_at(self, step: int) -> float:
        """Rises over ``warmup`` steps, stays, falls to zero along a half cosine.

        A run that must end sooner or later is started again with another ``steps``: the level part
        is the same in all of them.
        """
        falling = max(1, round(self.steps * self.decay))
        left = min(1.0, max(0.0, (self.steps - step) / falling))
        return self.rate * min(1.0, (step + 1) / self.warmup) * (1 - math.cos(math.pi * left)) / 2


def options(
    doc: str | None, *, steps: int, batch: int, rate: float | None = None, device: bool = False
) -> argparse.ArgumentParser:
    """What every run can be told; a run's own options are added to it.

    Args:
        doc: of the module; its first line is shown.
        rate: None: the run's rate is its own affair.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch, help="per worker")
    parser.add_argument("--seed", type=int, default=0)
    if rate is not None:
        parser.add_argument("--rate", type=float, default=rate)
    if device:
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--bf16", action="store_true", help="where processors are fast at it")
    return parser


def prepare(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line and make this process ready: one thread, its seed, its worker."""
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    join_workers()
    return given


def placed(model: Model, device: str) -> Model:
    """A UNet and its text encoders on a device, laid out for speed."""
    if device == "cpu":  # forwards and backwards faster there than the fused attention
        model.unet.set_attn_processor(AttnProcessor())  # type: ignore[operator,union-attr]
    made: Model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def join_workers() -> int:
    """This process's number under ``torchrun``, 0 without it."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.get_rank() if dist.is_initialized() else 0


def _share_gradients(parameters: Iterable[Parameter]) -> None:
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


class Run:
    """One model's training, kept in ``path`` and gone on with from there.

    The step's random numbers follow from ``seed``, the step and the worker alone, so that a run
    that was stopped draws what it would have drawn.
    """

    def __init__(self, model: nn.Module, plan: Plan, path: Path, seed: int) -> None:
        self.model, self.plan, self.path, self.seed = model, plan, path, seed
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        matrices = [p for name, p in trained.items() if p.ndim >= 2 and "embedding.w" not in name]
        rest = [p for name, p in trained.items() if p.ndim < 2 or "embedding.w" in name]
        self.optimisers: list[Optimizer] = [Muon(matrices, rate=plan.rate)]
        if rest:  # a LoRA is matrices alone
            self.optimisers.append(
                torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0)
            )
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.step = 0
        if path.exists():
            self._load()

    def train(self, loss_of: Callable[[torch.Generator], Tensor]) -> None:
        """Steps until the plan's end, saving as it goes. ``loss_of`` draws a batch itself."""
        worker = join_workers()
        bar = tqdm(
            total=self.plan.steps, initial=self.step, disable=worker > 0, mininterval=10, ncols=90
        )
        smooth = 0.0
        while self.step < self.plan.steps:
            generator = torch.Generator().manual_seed(hash((self.seed, self.step, worker)))
            loss = loss_of(generator)
            self._update(loss)
            smooth = loss.item() if smooth == 0 else 0.98 * smooth + 0.02 * loss.item()
            self.step += 1
            bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            bar.update()
            if worker == 0 and (
                self.step % self.plan.save_every == 0 or self.step == self.plan.steps
            ):
                self.save()
        bar.close()

    def _update(self, loss: Tensor) -> None:
        rate = self.plan.rate_at(self.step)
        torch.autograd.backward(loss)
        _share_gradients(self.parameters)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        keep = min(self.plan.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        unfinished = self.path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.path)

    def _load(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = {
            name: state["average"][name].to(v.device) for name, v in self.average.items()
        }
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
