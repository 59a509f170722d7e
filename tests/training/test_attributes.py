"""The classifier that faces are judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training.attributes import (
    CHOICES,
    MEASURES,
    AttributeNet,
    accuracy,
    feature_distance,
    labels,
    load_attribute_net,
    loss_of,
)
from training.autoencoder import as_tensor
from training.crops import cut
from training.portraits import Portrait, read_portraits

PORTRAITS = Path(__file__).parents[1] / "data" / "portraits"


@pytest.fixture(scope="module")
def held_out() -> list[Portrait]:
    return read_portraits(PORTRAITS)


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


def test_a_picture_is_no_distance_from_itself(net: AttributeNet, pictures: Tensor) -> None:
    assert feature_distance(net, pictures, pictures).abs().max() < 1e-6


def test_another_face_is_further_than_a_soft_one(net: AttributeNet, pictures: Tensor) -> None:
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    near, far = (feature_distance(net, pictures, p).mean() for p in (soft, pictures.roll(1, 0)))
    assert near < far
