"""Takes the mean of two runs of the denoiser, of which one began where the other ended.

    python -m training.mean FIRST SECOND OUT

All three are checkpoints. Such weights lie in one valley of the loss, which is often deeper halfway
between them than at either end (model soups, Wortsman et al. 2022). What is written can be exported
and built upon by ``training.xl`` and ``training.lora``; a run does not go on from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.denoiser import load_denoiser


def mean(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Halfway between two models' weights.

    Raises:
        ValueError: they are not of one layout.
    """
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ValueError("the two checkpoints hold networks of different layouts")
    return {
        name: value.lerp(second[name], 0.5) if value.is_floating_point() else value
        for name, value in first.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("first", type=Path, help="checkpoint of training.denoiser")
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    first, second = (load_denoiser(file).state_dict() for file in (given.first, given.second))
    torch.save({"average": mean(first, second)}, given.out)


if __name__ == "__main__":
    main()
