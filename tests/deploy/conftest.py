"""Orders for the embedded model."""

from __future__ import annotations

import numpy as np
import pytest

from afterdetail.models.catalogue import load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.options import Base, Sampler
from afterdetail.studio import Order


@pytest.fixture(scope="session")
def order() -> Order:
    return Order(
        choice=Choice(load_catalogue("tiny").bases()[Base.SD15]),
        image=np.full((64, 64, 3), 90, np.uint8),
        mask=np.full((64, 64), 255, np.uint8),
        prompt="a face",
        negative_prompt="",
        sampler=Sampler.DDIM,
        steps=4,
        strength=0.5,
        guidance_scale=7.5,
        seed=3,
    )
