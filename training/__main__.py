"""All of it, one command after the other.

    python -m training PORTRAITS VARIANTS                           a few hours on two cores
    python -m training PORTRAITS VARIANTS --device cuda --bf16 --batch 256 --steps 20000

Goes on where it was stopped; writes the models to ``build/training/tiny``, ``tiny-xl`` and
``tiny-xl-refiner``, and a LoRA of each base beside them. Look at them before they replace those in
the package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from training.attributes import EYES, JUDGE, WEIGHTS
from training.crops import CROPS
from training.export import PIPELINES

OUT = Path("build/training")
VARIANTS = ("--name", "variants")


def commands(given: argparse.Namespace) -> list[list[str]]:
    """The modules to run, with their arguments. Crops that are there already are kept."""
    portraits, variants, workers = str(given.portraits), str(given.variants), str(given.workers)
    crops = ["--per-portrait", str(given.per_portrait), "--workers", workers]
    denoiser = ["denoiser", "--steps", str(given.steps), "--batch", str(given.batch)]
    device = ["--device", given.device, *(["--bf16"] if given.bf16 else [])]
    every_layer = ["--all", "--batch", str(given.batch)] if given.device != "cpu" else []

    def classifier(seed: int, steps: int, out: Path) -> list[str]:
        drawn = ["--seed", str(seed), "--steps", str(steps)]
        return ["attributes", portraits, *drawn, "--out", str(out)]

    return [
        *([] if (CROPS / "train.jsonl").exists() else [["crops", portraits, *crops]]),
        *([] if (CROPS / "variants.jsonl").exists() else [["crops", variants, *crops, *VARIANTS]]),
        classifier(0, 1500, WEIGHTS),
        [*classifier(7, 1900, JUDGE), "--variants", variants],
        *(classifier(eye.seed, eye.steps, eye.weights) for eye in EYES),
        ["autoencoder"],
        ["evaluate"],
        [*denoiser, *device],
        ["preview"],
        ["tower", portraits],
        ["xl", *device, *every_layer],
        ["refiner", *device],
        ["lora", "--model", "tiny"],
        ["lora", "--model", "tiny-xl", "--steps", "20"],
        *(["export", str(OUT / model), "--model", model] for model in PIPELINES),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("portraits", type=Path, help="folder with metadata.jsonl and img/")
    parser.add_argument("variants", type=Path, help="the same, of training.variants")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="where processors are fast at it")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--per-portrait", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    for command in commands(parser.parse_args()):
        print(f"training.{' '.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", f"training.{command[0]}", *command[1:]], check=True)


if __name__ == "__main__":
    main()
