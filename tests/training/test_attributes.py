"""The classifier that faces are judged by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training.attributes import (
    AGE,
    APART,
    CHOICES,
    MEASURES,
    AgedCrops,
    AttributeNet,
    Crops,
    accuracy,
    apart_loss,
    feature_distance,
    labels,
    load_attribute_net,
    loss_of,
)
from training.autoencoder import as_tensor
from training.crops import cut, pack
from training.portraits import Portrait, read_portraits

DATA = Path(__file__).parents[1] / "data"
PLAIN = read_portraits(DATA / "aged")[0]
"""A held-out head."""


@pytest.fixture(scope="module")
def held_out() -> list[Portrait]:
    return read_portraits(DATA / "portraits")


@pytest.fixture(scope="module")
def pictures(held_out: list[Portrait]) -> Tensor:
    crops = [cut(portrait, np.random.default_rng(portrait.seed)) for portrait in held_out]
    return as_tensor(np.stack([crop.sharp for crop in crops]))


@pytest.fixture(scope="module")
def net() -> AttributeNet:
    return load_attribute_net()


def test_no_portraits_have_no_labels() -> None:
    assert labels([]).shape == (0,)


def test_labels_name_the_first_answer_zero(held_out: list[Portrait]) -> None:
    wanted = labels(held_out)
    assert wanted.shape == (len(held_out), len(CHOICES) + len(MEASURES))
    assert wanted[0, 0] == CHOICES[0].answers.index(str(held_out[0].attributes["gender"]))
    age = wanted[0, len(CHOICES)] * MEASURES[0].spread + MEASURES[0].middle
    assert float(age) == pytest.approx(held_out[0].attributes["age"])


def test_it_tells_strangers_apart(
    net: AttributeNet, pictures: Tensor, held_out: list[Portrait]
) -> None:
    with torch.no_grad():
        told = accuracy(net(pictures), labels(held_out))
    assert told["gender"] >= 0.6
    assert told["melanin"] < 0.2
    assert told["yaw"] < 15


def test_right_answers_have_the_smaller_loss(held_out: list[Portrait]) -> None:
    wanted = labels(held_out)
    right = [
        10.0 * torch.nn.functional.one_hot(wanted[:, column].long(), len(choice.answers))
        for column, choice in enumerate(CHOICES)
    ]
    scores = torch.cat([*right, wanted[:, len(CHOICES) :]], 1)
    assert loss_of(scores, wanted) < 0.1 < loss_of(scores.roll(1, 0), wanted)


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Portrait]]:
    """Three heads, each young and old; the last is held out."""
    trained = [seed for seed in range(20) if not replace(PLAIN, seed=seed).held_out][:2]
    seeds = [seed for seed in (*trained, PLAIN.seed) for _ in range(2)]
    rows = read_portraits(DATA / "aged")[:6]
    heads = [replace(row, seed=seed) for row, seed in zip(rows, seeds, strict=True)]
    folder = tmp_path_factory.mktemp("aged")
    pack(heads, "variants", folder, per_portrait=2, seed=1)
    return folder, heads


def test_pairs_are_young_and_old_and_none_is_held_out(
    aged: tuple[Path, list[Portrait]],
) -> None:
    crops = AgedCrops(*aged)
    assert crops.pairs.tolist() == [[0, 1], [2, 3], [6, 7], [8, 9]]
    pictures, wanted = crops.draw(8, torch.Generator().manual_seed(1))
    assert pictures.shape == (8, 3, 128, 128)
    assert (wanted[4:, AGE] - wanted[:4, AGE] > APART).all()


def test_crops_of_other_portraits_have_no_labels(aged: tuple[Path, list[Portrait]]) -> None:
    folder, heads = aged
    with pytest.raises(ValueError, match="not of these portraits"):
        Crops(folder, [], "variants")
    with pytest.raises(ValueError, match="not of these portraits"):
        Crops(folder, heads[::-1], "variants")


def test_how_much_older_is_what_counts_not_how_old(aged: tuple[Path, list[Portrait]]) -> None:
    wanted = labels(aged[1]).reshape(3, 2, -1).transpose(0, 1).flatten(0, 1)
    scores = torch.zeros(6, sum(len(c.answers) for c in CHOICES) + len(MEASURES))
    scores[:, -len(MEASURES)] = wanted[:, AGE] + 1
    assert apart_loss(scores, wanted) < 1e-9
    scores[:3, -len(MEASURES)] += 2
    assert float(apart_loss(scores, wanted)) == pytest.approx(4)


def test_a_picture_is_no_distance_from_itself(net: AttributeNet, pictures: Tensor) -> None:
    assert feature_distance(net, pictures, pictures).abs().max() < 1e-6


def test_another_face_is_further_than_a_soft_one(net: AttributeNet, pictures: Tensor) -> None:
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    near, far = (feature_distance(net, pictures, p).mean() for p in (soft, pictures.roll(1, 0)))
    assert near < far
