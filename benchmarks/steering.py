"""Whether the embedded models do what they are told: prompts, guidance, LoRAs and steps.

    python -m benchmarks.steering [--portraits FOLDER] [--count 12] [--models tiny tiny-xl]

Held-out rendered faces, degraded, are repainted with opposite prompts, and the attribute classifier
of ``training.attributes`` says what became of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from training.attributes import CHOICES, JUDGE, MEASURES, AttributeNet, load_attribute_net
from training.autoencoder import as_tensor
from training.portraits import Portrait, read_portraits

from afterdetail import Detailer
from afterdetail.options import Sampler
from afterdetail.types import RGB
from benchmarks.figures import BLUR, Case, face_crop
from benchmarks.heading import heading
from benchmarks.quality import DETECTOR, PADDING, PORTRAITS, find_cases

AGED = Path(__file__).parents[1] / "tests" / "data" / "aged"
"""Heads rendered young and old and otherwise alike, in pairs, the young one first."""

RESULTS = Path(__file__).with_name("results") / "steering.md"
DILATION = 40
"""So much that most of the hair is repainted too."""
STEPS = 10
LORAS = {"tiny": "tiny-tan", "tiny-xl": "tiny-xl-tan"}
WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 1.5)
STEP_COUNTS = (5, 10, 20)
MANY_STEPS = 40


@dataclass(frozen=True, slots=True)
class Wish:
    """An attribute, two prompts that pull it down and up, and how the classifier tells it.

    The prompts are phrases of captions; ``{person}`` is a man or a woman, as the face is.
    ``answers`` of a choice count together, as a share; an attribute without them is a number, of
    which the classifier says no less and no more than ``within``.
    """

    name: str
    down: str
    up: str
    attribute: str
    answers: tuple[str, ...] = ()
    within: tuple[float, float] = (-math.inf, math.inf)

    def told(self, scores: Tensor) -> float:
        """The mean of faces whose scores are ``(B, answers)``: percent, or the number."""
        *logits, numbers = torch.split(
            scores, [*(len(choice.answers) for choice in CHOICES), len(MEASURES)], 1
        )
        for choice, given in zip(CHOICES, logits, strict=True):
            if choice.name == self.attribute:
                chosen = [choice.answers.index(answer) for answer in self.answers]
                return 100 * float(given.softmax(1)[:, chosen].sum(1).mean())
        column, measure = next(
            (column, m) for column, m in enumerate(MEASURES) if m.name == self.attribute
        )
        values = measure.middle + measure.spread * numbers[:, column]
        return float(values.clamp(*self.within).mean())


def said_of(portrait: Portrait, prompt: str) -> str:
    """A wish's prompt, said of this person."""
    person = "woman" if portrait.attributes["gender"] == "female" else "man"
    return prompt.format(person=person)


AGE = Wish("age", "young {person}", "old {person}", "age", within=(8, 80))
"""The portraits are 8 to 80 years old."""

SKIN = Wish("melanin", "pale skin", "dark skin", "melanin")
WISHES = (
    Wish("laughs %", "sad", "laughing", "expr", ("laughing",)),
    Wish("smiles %", "sad", "smiling", "expr", ("smiling", "laughing")),
    AGE,
    SKIN,
    Wish("light hair %", "black hair", "white hair", "hair_color", ("blond", "grey", "white")),
)


@dataclass(frozen=True, slots=True)
class Setting:
    strength: float
    cfg_scale: float
    color_match: bool = False

    def __str__(self) -> str:
        matched = ", color_match" if self.color_match else ""
        return f"strength {self.strength:g}, guidance {self.cfg_scale:g}{matched}"


SETTINGS = (
    Setting(0.75, 1),
    Setting(0.75, 7.5),
    Setting(0.4, 7.5),
    Setting(0.75, 4),
    Setting(0.95, 7.5),
    Setting(0.75, 7.5, color_match=True),
)
PLAIN = (Setting(0.75, 1), Setting(0.4, 1))
"""Without guidance: without a prompt it has nothing to follow."""


@cache
def _net() -> AttributeNet:
    return load_attribute_net(JUDGE)


@torch.no_grad()
def told(wish: Wish, portraits: Sequence[Portrait], pictures: Iterable[RGB]) -> float:
    """What the classifier says of the faces, on average."""
    pairs = zip(pictures, portraits, strict=True)
    crops = np.stack([face_crop(rgb, portrait.box) for rgb, portrait in pairs])
    return wish.told(_net()(as_tensor(crops)))


class Painter:
    """Repaints the same faces again and again, each with a seed of its own."""

    def __init__(self, detailer: Detailer, model: str, cases: Sequence[Case]) -> None:
        self.detailer, self.model, self.cases = detailer, model, cases
        self.base = "sdxl" if model == "tiny-xl" else "sd15"

    def paint(
        self,
        how: Setting,
        prompt: str = "",
        *,
        loras: dict[str, float] | None = None,
        sampler: Sampler = Sampler.DDIM,
        steps: int = STEPS,
    ) -> list[RGB]:
        return [
            self.detailer.detail(
                case.soft,
                prompt=said_of(case.portrait, prompt),
                strength=how.strength,
                cfg_scale=how.cfg_scale,
                color_match=how.color_match,
                inpainting_base_model=self.base,
                loras=loras,
                sampler=sampler,
                steps=steps,
                detector=DETECTOR,
                seed=case.portrait.seed,
                mask_dilation=DILATION,
                mask_blur=BLUR,
                mask_padding=PADDING,
                max_num_detections=1,
            ).picture.rgb
            for case in self.cases
        ]

    def told(self, wish: Wish, made: Iterable[RGB]) -> float:
        return told(wish, [case.portrait for case in self.cases], made)


def truth_row(held: Sequence[Portrait]) -> str:
    """What the classifier says of the truth, where it is what the prompts name."""

    def mean(wish: Wish, phrase: str) -> float:
        named = [portrait for portrait in held if said_of(portrait, phrase) in portrait.caption]
        return told(wish, named, (portrait.read() for portrait in named))

    cells = [f"{mean(wish, wish.down):.3g} → {mean(wish, wish.up):.3g}" for wish in WISHES]
    return f"| faces that are so | {' | '.join(cells)} |"


def aged_row() -> str:
    """What the classifier says of age where nothing else differs."""
    heads = read_portraits(AGED)
    halves = (told(AGE, half, (head.read() for head in half)) for half in (heads[::2], heads[1::2]))
    shown = " → ".join(f"{years:.3g}" for years in halves)
    cells = [shown if wish is AGE else "" for wish in WISHES]
    return f"| heads rendered both ways | {' | '.join(cells)} |"


def prompts_row(painter: Painter, how: Setting) -> str:
    cells = []
    for wish in tqdm(WISHES, f"{painter.model}, {how}", mininterval=10):
        down, up = (painter.told(wish, painter.paint(how, p)) for p in (wish.down, wish.up))
        cells.append(f"{down:.3g} → {up:.3g}")
    return f"| `{painter.model}`, {how} | {' | '.join(cells)} |"


def lora_row(painter: Painter, how: Setting) -> str:
    name, cells = LORAS[painter.model], []
    for weight in tqdm(WEIGHTS, f"{name}, {how}", mininterval=10):
        made = painter.paint(how, loras={name: weight})
        cells.append(f"{painter.told(SKIN, made):.3f}")
    return f"| `{name}`, {how} | {' | '.join(cells)} |"


def convergence_row(painter: Painter, how: Setting, sampler: Sampler) -> str:
    """Mean distance of pictures of few steps from those of many, in 1/255, inside the faces."""
    most = painter.paint(how, sampler=sampler, steps=MANY_STEPS)
    cells = []
    for steps in STEP_COUNTS:
        made = painter.paint(how, sampler=sampler, steps=steps)
        apart = [
            np.abs(few[case.face].astype(int) - many[case.face]).mean()
            for case, few, many in zip(painter.cases, made, most, strict=True)
        ]
        cells.append(f"{np.mean(apart):.2f}")
    return f"| {sampler} | {' | '.join(cells)} |"


def table(heads: Sequence[str], rows: Iterable[str]) -> list[str]:
    return [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads), *rows, ""]


def shown(row: str) -> str:
    """A row, shown as soon as it is taken."""
    print(row, flush=True)
    return row


def take(portraits: Path, count: int, models: Sequence[str], few: int) -> str:
    """The page of one run."""
    held = [portrait for portrait in read_portraits(portraits) if portrait.held_out]
    with Detailer("tiny") as detailer:
        cases, _ = find_cases(held, detailer, count)
        painters = [Painter(detailer, model, cases) for model in models]
        last = Painter(detailer, models[-1], cases[:few])
        prompts = [shown(prompts_row(painter, how)) for painter in painters for how in SETTINGS]
        loras = [shown(lora_row(painter, how)) for painter in painters for how in PLAIN]
        tried = list(Sampler) if few else []
        samplers = [shown(convergence_row(last, PLAIN[0], sampler)) for sampler in tried]
    heads = [
        f"{wish.name}: “{wish.down}” → “{wish.up}”".format(person="man or woman") for wish in WISHES
    ]
    lines = [
        heading("Do the embedded models do what they are told?", ("torch", "diffusers")),
        f"{count} held-out rendered portraits, degraded, repainted with DDIM, {STEPS} steps, the"
        " hair too, and judged by a classifier of attributes: means, with one prompt and with its"
        " opposite. Taken by `python -m benchmarks.steering"
        f" --count {count} --models {' '.join(models)} --few {few}`.",
        "",
        "## Prompts and guidance",
        "",
        *table(heads, [truth_row(held), aged_row(), *prompts]),
        "## LoRAs",
        "",
        "Melanin by the weight of the LoRA, without a prompt.",
        "",
        *table([f"{weight:g}" for weight in WEIGHTS], loras),
    ]
    if samplers:
        lines += [
            "## Steps",
            "",
            f"How far the faces are from those of {MANY_STEPS} steps, in 1/255: {few} faces,"
            f" `{last.model}`, {PLAIN[0]}. Ancestral and SDE samplers draw new noise at each step.",
            "",
            *table([f"{steps} steps" for steps in STEP_COUNTS], samplers),
        ]
    return "\n".join(lines)


def report(
    portraits: Path = PORTRAITS,
    count: int = 12,
    models: Sequence[str] = tuple(LORAS),
    few: int = 2,
) -> str:
    """The page; without the portraits the one taken last."""
    if portraits.exists():
        return take(portraits, count, models, few)
    return RESULTS.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--portraits", type=Path, default=PORTRAITS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--few", type=int, default=2, help="faces that every sampler is tried on")
    parser.add_argument("--models", nargs="+", choices=tuple(LORAS), default=list(LORAS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    page = report(given.portraits, given.count, given.models, given.few)
    given.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
