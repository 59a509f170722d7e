"""Heads with other attributes, of a renderer that is only numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from training.variants import CHANGES, KINDS, PARTS, Head, family

OWN = {"melanin": 0.3, "expr": "sad", "hair_color": "red", "age": 30.0, "light": "soft"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [OWN, OWN | {"age": 70.0, "melanin": 0.9}])
def test_a_change_is_one_attribute_that_differs(kind: Any, own: dict[str, Any]) -> None:
    for seed in range(20):
        changed = kind(own, np.random.default_rng(seed))
        assert len(changed) == 1
        assert all(own[name] != value for name, value in changed.items())


def test_a_family_is_the_head_and_changes_of_it() -> None:
    first, *others = family(OWN, np.random.default_rng(1))
    assert first == OWN and len(others) == CHANGES
    changed = [{name for name in OWN if other[name] != OWN[name]} for other in others]
    assert all(len(names) == 1 for names in changed)
    assert len(set.union(*changed)) == CHANGES


def test_what_is_not_asked_for_stays() -> None:
    def draws(attributes: dict[str, Any], rng: np.random.Generator, *_: object) -> float:
        """An old head draws once more than a young one, as the renderer's do."""
        return float(rng.random(2 if attributes["age"] > 45 else 1)[0])

    def render(seed: int) -> tuple[Any, ...]:
        rng = np.random.default_rng(seed)
        attributes = renderer.sample_attr(rng)
        return (
            attributes,
            *(getattr(renderer, part)(attributes, rng) for part in PARTS),
            rng.random(),
        )

    renderer = SimpleNamespace(
        **dict.fromkeys(PARTS, draws), sample_attr=lambda rng: OWN | {"age": 20 + rng.random()}
    )
    renderer.render = render
    head = Head(renderer)
    young, again, old = (head.render(3, OWN | {"age": age}) for age in (20.0, 20.0, 70.0))
    assert young == again and young[1:] == old[1:] and old[0]["age"] == 70.0
    assert len(set(young[1:])) == len(PARTS) + 1
    assert head.render(4, OWN)[1:] != young[1:]
    assert head.family(3) == head.family(3) != head.family(4)
