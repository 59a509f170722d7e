"""Renders heads several times, each time with another attribute: what a prompt can ask for.

    python -m training.variants RENDER OUT [--first 200000] [--count 600]

``RENDER`` is the folder of the portraits' renderer (``render.py``); this command alone runs where
its packages are installed (mitsuba, mitsuba-oidn, opencv-python-headless), not the project's. It
writes ``OUT/img/SEED-NUMBER.jpg`` and appends to ``OUT/metadata.jsonl``, in the portraits' layout;
heads that are there already are passed over. One core renders about one picture a second.

A portrait's caption says what its blurred picture shows as well, so from portraits alone no model
learns to listen (InstructPix2Pix, Brooks et al. 2023, trains on such pairs for the same reason).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("shape", "hairgeo", "skintex", "eyetex", "envmap", "background")
"""The renderer's functions that draw random numbers, from one generator in turn."""

CHANGES = 3
"""Variants of a head, beside itself."""

QUALITY = 95

Attributes = dict[str, Any]


def other_skin(own: Attributes, rng: np.random.Generator) -> Attributes:
    """Melanin at the middle of another of the captions' five names for skin."""
    shades = [
        shade for shade in (0.07, 0.25, 0.43, 0.62, 0.88) if abs(shade - own["melanin"]) > 0.2
    ]
    return {"melanin": float(rng.choice(shades))}


def other_expression(own: Attributes, rng: np.random.Generator) -> Attributes:
    """One that captions name: they pass over a neutral face."""
    names = ("smiling", "laughing", "surprised", "angry", "sad", "eyes closed")
    chances = np.array([0.35, 0.1, 0.1, 0.1, 0.3, 0.05]) * [name != own["expr"] for name in names]
    return {"expr": str(rng.choice(names, p=chances / chances.sum()))}


def other_hair(own: Attributes, rng: np.random.Generator) -> Attributes:
    """Its colour. Bald heads stay so, with other brows."""
    names = ("black", "dark brown", "brown", "light brown", "blond", "red", "grey", "white")
    return {"hair_color": str(rng.choice([name for name in names if name != own["hair_color"]]))}


def other_age(own: Attributes, rng: np.random.Generator) -> Attributes:
    """Young heads old, old ones young."""
    bounds = (58.0, 80.0) if own["age"] < 45 else (16.0, 29.0)
    return {"age": float(rng.uniform(*bounds))}


KINDS: tuple[Callable[[Attributes, np.random.Generator], Attributes], ...] = (
    other_skin,
    other_expression,
    other_hair,
    other_age,
)


def family(own: Attributes, rng: np.random.Generator) -> list[Attributes]:
    """A head's own attributes and :data:`CHANGES` more, each with another one changed."""
    chosen = rng.choice(len(KINDS), CHANGES, replace=False)
    return [own, *(own | KINDS[kind](own, rng) for kind in chosen)]


class Head:
    """One seed's head: whatever is not asked for stays as it is.

    The renderer draws everything from one generator, and how often depends on the attributes. Here
    each of its parts draws from its own.

    Args:
        renderer: the module; its functions are replaced.
    """

    def __init__(self, renderer: Any) -> None:
        self.renderer, self.draw_attributes = renderer, renderer.sample_attr
        self.seed, self.attributes = 0, {}  # type: tuple[int, Attributes]
        for number, part in enumerate(PARTS, 1):
            setattr(renderer, part, self._steady(getattr(renderer, part), number))
        renderer.sample_attr = lambda _: dict(self.attributes)

    def family(self, seed: int) -> list[Attributes]:
        own = self.draw_attributes(np.random.default_rng(seed))
        return family(own, np.random.default_rng((seed, len(PARTS) + 1)))

    def render(self, seed: int, attributes: Attributes) -> tuple[Any, ...]:
        """The picture ``(H, W, 3)``, the attributes with the caption, the face's box, the eyes."""
        self.seed, self.attributes = seed, attributes
        made: tuple[Any, ...] = self.renderer.render(seed)
        return made

    def _steady(self, draw: Callable[..., Any], number: int) -> Callable[..., Any]:
        def steady(attributes: Attributes, rng: np.random.Generator, *rest: Any) -> Any:
            if number == 1:  # the pose, the camera and the light's level are drawn after it
                rng.bit_generator.state = np.random.default_rng((self.seed, 0)).bit_generator.state
            return draw(attributes, np.random.default_rng((self.seed, number)), *rest)

        return steady


def write(head: Head, seed: int, out: Path) -> None:
    """All of a head's family; every record has the box of the head itself."""
    box = None
    records = []
    for number, asked in enumerate(head.family(seed)):
        picture, attributes, found, eyes = head.render(seed, asked)
        box = box or [round(edge, 1) for edge in found]
        file = f"img/{seed:06d}-{number}.jpg"
        save(picture, out / file)
        caption = attributes.pop("caption")
        records.append(
            {"file": file, "caption": caption, "box": box, "eyes": eyes}
            | {"attr": attributes, "seed": seed}
        )
    with (out / "metadata.jsonl").open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in records)


def save(picture: np.ndarray, file: Path) -> None:
    """As JPEG, in full colour resolution."""
    cv2: Any = import_module("cv2")  # of the renderer's environment
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    cv2.imwrite(str(file), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *full])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("render", type=Path, help="folder of the portraits' renderer")
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=200000, help="seed of the first head")
    parser.add_argument("--count", type=int, default=600, help="heads, with their variants")
    given = parser.parse_args()
    sys.path.insert(0, str(given.render))
    renderer = import_module("render")
    import_module("drjit").set_thread_count(1)
    (given.out / "img").mkdir(parents=True, exist_ok=True)
    head = Head(renderer)
    for seed in range(given.first, given.first + given.count):
        if not (given.out / f"img/{seed:06d}-{CHANGES}.jpg").exists():
            try:
                write(head, seed, given.out)
            except Exception as error:  # a geometry that fails; the others are worth having
                print(f"head {seed} is left out: {error!r:.120}", flush=True)


if __name__ == "__main__":
    main()
