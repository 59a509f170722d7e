"""Whether the embedded models do what prompts and LoRAs say: floors under what the bench found."""

from __future__ import annotations

import pytest
from benchmarks.figures import Case
from benchmarks.steering import LORAS, SKIN, WISHES, Painter, Setting

from afterdetail import Detailer

FACES = 2
GUIDED, UNGUIDED = Setting(0.75, 7.5), Setting(0.75, 1)
APART = {"laughs %": 45, "age": 10, "melanin": 0.3, "light hair %": 50}
"""About half of what eight faces gave, of age half of what these two did, who hear of it least.
True smiles are hardly told from sadness: no floor."""


@pytest.fixture(scope="module", params=LORAS)
def painter(request: pytest.FixtureRequest, embedded: Detailer, cases: list[Case]) -> Painter:
    return Painter(embedded, request.param, cases[:FACES])


@pytest.mark.parametrize("name", APART)
def test_opposite_prompts_paint_faces_that_differ_in_what_they_name(
    painter: Painter, name: str
) -> None:
    wish = next(wish for wish in WISHES if wish.name == name)
    down, up = (painter.told(wish, painter.paint(GUIDED, said)) for said in (wish.down, wish.up))
    assert up - down > APART[name]


def test_a_lora_tans_the_more_the_more_it_weighs(painter: Painter) -> None:
    name = LORAS[painter.model]
    plain, half, whole = (
        painter.told(SKIN, painter.paint(UNGUIDED, loras={name: weight}))
        for weight in (0.0, 0.75, 1.5)
    )
    assert plain < half < whole
    assert whole - plain > 0.1
