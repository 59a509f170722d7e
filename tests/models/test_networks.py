"""What goes on around the building of networks."""

from __future__ import annotations

import gc

import pytest

from afterdetail.models.networks import no_collection


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_afterwards_as_before(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(ValueError, match="damaged"), no_collection():
            assert not gc.isenabled()
            raise ValueError("damaged")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
