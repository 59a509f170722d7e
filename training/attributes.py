"""Trains a small classifier of what the portraits' captions name.

    python -m training.attributes PORTRAITS [--steps 1500]
    python -m training.attributes PORTRAITS --variants VARIANTS --seed 7 --steps 1900 \\
        --out benchmarks/judge.safetensors
    python -m training.attributes PORTRAITS --seed 1 --out build/training/eye-1.safetensors

Its layers are the feature distance of ``benchmarks.quality``. It learns from sharp and degraded
crops alike and is written next to the benchmarks, fp16. The second line makes one that also tells
how old a face is whose hair does not say it; by its answers ``benchmarks.steering`` tells whether
prompts steer. The third makes one of ``EYES``, for ``training.denoiser`` to learn from: no model is
trained on those that measure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.autoencoder import as_tensor
from training.crops import CROPS, crop_heads, crop_seeds
from training.loop import Plan, Run, options, prepare
from training.portraits import Portrait, read_portraits

WEIGHTS = Path(__file__).parents[1] / "benchmarks" / "attributes.safetensors"
JUDGE = WEIGHTS.with_name("judge.safetensors")
WIDTHS = (3, 24, 48, 96, 128)


@dataclass(frozen=True, slots=True)
class Eye:
    """A classifier that the UNet learns from, of a seed and of steps of its own."""

    seed: int
    steps: int = 500

    @property
    def weights(self) -> Path:
        return CROPS.parent / f"eye-{self.seed}.safetensors"


EYES = (Eye(1, 1500), Eye(2, 1500), Eye(3), Eye(4), Eye(5), Eye(6))
"""None of them measures what the UNet has learnt."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An attribute with one of several names."""

    name: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """An attribute with a number, which is learnt as ``(number - middle) / spread``."""

    name: str
    middle: float
    spread: float


CHOICES: Final = (
    Choice("gender", ("female", "male")),
    Choice("expr", ("neutral", "smiling", "laughing", "surprised", "sad", "angry", "eyes closed")),
    Choice(
        "hair_color",
        ("black", "dark brown", "brown", "light brown", "blond", "red", "grey", "white"),
    ),
    Choice("hair", ("short", "medium", "long", "curly", "buzz", "bun", "bald")),
    Choice("beard", ("none", "stubble", "beard")),
    Choice("eye_color", ("dark", "brown", "blue", "grey", "hazel", "green")),
)
MEASURES: Final = (
    Measure("age", 35.0, 20.0),
    Measure("melanin", 0.45, 0.3),
    Measure("yaw", 0.0, 25.0),
    Measure("pitch", 0.0, 10.0),
)


AGE = len(CHOICES)
"""The column of it among the labels: it is the first of the measures."""

APART = 0.75
"""In spreads, 15 years: as much older the old one of two renders of a head is at least."""

TOLD_APART = 3.0
"""How much it counts that a head is told to be older than itself, beside everything else. Portraits
alone teach that grey hair is old: so taught, a classifier tells next to nothing between two renders
of one head whose hair stays."""

SHARP = 0.75
"""Share of sharp crops."""


class AttributeNet(nn.Module):
    """Four convolutions by stride 2, each with another behind it, a mean, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(below, width, 3, 2, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, 1, 1, groups=8),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            )
            for below, width in pairwise(WIDTHS)
        )
        answers = sum(len(choice.answers) for choice in CHOICES) + len(MEASURES)
        self.head = nn.Linear(2 * WIDTHS[-1], answers)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What each stage makes of pictures ``(B, 3, 128, 128)``, -1..1."""
        made = [pictures]
        for stage in self.stages:
            made.append(stage(made[-1]))
        return made[1:]

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores ``(B, answers)``: the choices' logits in their order, then the measures."""
        return self.answer(self.features(pictures)[-1])

    def answer(self, last: Tensor) -> Tensor:
        """The scores that the last stage's features lead to."""
        answers: Tensor = self.head(torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1))
        return answers


def load_attribute_net(weights: Path = WEIGHTS) -> AttributeNet:
    net = AttributeNet()
    net.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return net.eval().requires_grad_(False)


def feature_distance(net: AttributeNet, first: Tensor, second: Tensor) -> Tensor:
    """How differently it sees two stacks of pictures ``(B, 3, 128, 128)``: ``(B,)``, from 0."""
    return features_apart(net.features(first), net.features(second))


def features_apart(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """How far the features of two stacks of pictures are apart: ``(B,)``, from 0.

    At each place of each stage the squared distance of the two directions (as in LPIPS, Zhang et
    al. 2018, without learnt weights), averaged over the places and then over the stages.
    """
    pairs = zip(first, second, strict=True)
    apart = [
        (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).square().sum(1)
        for a, b in pairs
    ]
    return torch.stack([stage.mean((1, 2)) for stage in apart]).mean(0)


def labels(portraits: Sequence[Portrait]) -> Tensor:
    """``(N, choices + measures)``: the answers' indices, then the scaled numbers."""

    def row(portrait: Portrait) -> list[float]:
        given = portrait.attributes
        named = [float(choice.answers.index(str(given[choice.name]))) for choice in CHOICES]
        scaled = [(float(str(given[m.name])) - m.middle) / m.spread for m in MEASURES]
        return named + scaled

    return torch.tensor([row(portrait) for portrait in portraits])


def loss_of(scores: Tensor, wanted: Tensor) -> Tensor:
    sizes = [len(choice.answers) for choice in CHOICES]
    *logits, numbers = torch.split(scores, [*sizes, len(MEASURES)], 1)
    loss = functional.mse_loss(numbers, wanted[:, len(CHOICES) :])
    for column, one in enumerate(logits):
        loss = loss + 0.5 * functional.cross_entropy(one, wanted[:, column].long())
    return loss


def accuracy(scores: Tensor, wanted: Tensor) -> dict[str, float]:
    """Share of right answers of each choice, mean error of each measure in its own unit."""
    sizes = [len(choice.answers) for choice in CHOICES]
    *logits, numbers = torch.split(scores, [*sizes, len(MEASURES)], 1)
    right = {
        choice.name: (one.argmax(1) == wanted[:, column]).float().mean().item()
        for column, (choice, one) in enumerate(zip(CHOICES, logits, strict=True))
    }
    errors = (numbers - wanted[:, len(CHOICES) :]).abs().mean(0).tolist()
    return right | {m.name: m.spread * e for m, e in zip(MEASURES, errors, strict=True)}


class Crops:
    """Crops, most of them sharp, with their portraits' labels.

    ``portraits`` are in the order in which they were packed; those that were not are passed over.

    Raises:
        ValueError: the crops are of other portraits.
    """

    def __init__(self, folder: Path, portraits: Sequence[Portrait], name: str) -> None:
        self.sharp = np.load(folder / f"{name}-sharp.npy", mmap_mode="r")
        self.soft = np.load(folder / f"{name}-soft.npy", mmap_mode="r")
        seeds = crop_seeds(folder, name)
        there = set(seeds)
        packed = [portrait for portrait in portraits if portrait.seed in there]
        again = len(seeds) // max(1, len(packed))
        if seeds != [portrait.seed for portrait in packed] * again:
            raise ValueError(
                f"{name} crops are not of these portraits; cut them with training.crops"
            )
        self.labels = labels(packed).repeat(again, 1)
        held = torch.tensor([portrait.held_out for portrait in packed]).repeat(again)
        self.rows = (~held).nonzero()[:, 0]
        """What is drawn from: no held-out head's."""

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = self.rows[torch.randint(len(self.rows), (size,), generator=generator)]
        kinds = torch.rand(size, generator=generator) < SHARP
        rows = [
            (self.sharp if sharp else self.soft)[index]
            for index, sharp in zip(chosen.tolist(), kinds.tolist(), strict=True)
        ]
        return as_tensor(np.stack(rows)), self.labels[chosen]


class AgedCrops(Crops):
    """Crops of heads rendered both young and old (``training.variants``), in pairs."""

    def __init__(self, folder: Path, portraits: Sequence[Portrait]) -> None:
        super().__init__(folder, portraits, "variants")
        trained = set(self.rows.tolist())
        ages = self.labels[:, AGE].tolist()
        self.pairs = torch.tensor(
            [
                (young, old)
                for head in crop_heads(folder, "variants")
                for young, old in permutations(head, 2)
                if young in trained and ages[old] - ages[young] > APART
            ]
        )

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The young ones, then the old ones."""
        chosen = self.pairs[torch.randint(len(self.pairs), (size // 2,), generator=generator)].T
        sharp = float(torch.rand((), generator=generator)) < SHARP
        crops = (self.sharp if sharp else self.soft)[chosen.flatten().numpy()]
        return as_tensor(crops), self.labels[chosen.flatten()]


def apart_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of how much older the second half is than the first."""
    younger, older = (scores[:, -len(MEASURES)] - wanted[:, AGE]).chunk(2)
    return (older - younger).square().mean()


def main() -> None:
    parser = options(__doc__, steps=1500, batch=32)
    parser.add_argument("portraits", type=Path, help="folder with metadata.jsonl and img/")
    parser.add_argument("--variants", type=Path, help="heads rendered young and old, too")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = prepare(parser)
    portraits = read_portraits(given.portraits)
    crops, held = (Crops(CROPS, portraits, name) for name in ("train", "held"))
    aged = AgedCrops(CROPS, read_portraits(given.variants)) if given.variants else None
    net = AttributeNet()
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(generator: torch.Generator) -> Tensor:
        pictures, wanted = crops.draw(given.batch, generator)
        loss = loss_of(net(pictures), wanted)
        if aged is not None:
            pictures, wanted = aged.draw(given.batch, generator)
            scores = net(pictures)
            loss = loss + loss_of(scores, wanted) + TOLD_APART * apart_loss(scores, wanted)
        return loss

    checkpoint = (CROPS.parent / given.out.stem).with_suffix(".pt")
    run = Run(net, Plan(given.steps, 2e-3, average=0.99), checkpoint, given.seed)
    run.train(loss)
    save_file({name: value.half().contiguous() for name, value in run.average.items()}, given.out)
    with torch.no_grad():
        scores = load_attribute_net(given.out)(as_tensor(held.sharp))
    for name, value in accuracy(scores, held.labels).items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
