"""Halfway between two models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.denoiser import Denoiser, load_denoiser
from training.mean import main, mean


def test_nothing_has_no_mean() -> None:
    assert mean({}, {}) == {}


def test_the_mean_is_halfway_and_whole_numbers_are_the_firsts() -> None:
    first = {"weight": torch.tensor([0.0, 2.0]), "ids": torch.tensor([1, 2])}
    made = mean(first, {"weight": torch.tensor([4.0, 2.0]), "ids": torch.tensor([1, 2])})
    assert made["weight"].tolist() == [2.0, 2.0]
    assert made["ids"].tolist() == [1, 2]


def test_other_layouts_have_none() -> None:
    with pytest.raises(ValueError, match="different layouts"):
        mean({"weight": torch.zeros(2)}, {"weight": torch.zeros(3)})


def test_what_is_written_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{name}.pt" for name in ("first", "second", "mean")]
    models = [Denoiser(vocabulary=40, latents=4) for _ in range(2)]
    for file, model in zip(files, models, strict=False):
        torch.save({"average": model.state_dict()}, file)
    monkeypatch.setattr("sys.argv", ["training.mean", *map(str, files)])
    main()
    ends = [model.unet.conv_in.weight for model in models]
    made = load_denoiser(files[2]).unet.conv_in.weight
    torch.testing.assert_close(made, (ends[0] + ends[1]) / 2)
