"""The fault hook: faults that no client can cause, raised where the engine calls the model.

It stands in for the UNet of every model that a detailer loads from then on, and is no part of the
package: a normal start has no place where it could be put in. As a program it serves with the hook
in place: ``python tests/server/faults.py PORT device-lost``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from afterdetail.models import loader

if TYPE_CHECKING:
    from afterdetail.models.diffusion import DiffusionModel

Fault = Callable[[Any], Any]
"""Given what the UNet predicted; raises, blocks, or returns something else."""


def fails(_: Any) -> Any:
    raise RuntimeError("a kernel's own words at /secret/path")


def out_of_memory(_: Any) -> Any:
    raise torch.OutOfMemoryError("tried to allocate 20 GiB")


def device_lost(_: Any) -> Any:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def not_a_number(prediction: Any) -> Any:
    return (torch.full_like(prediction[0], torch.nan),)


def dies(_: Any) -> Any:
    raise SystemExit("the thread ends")


@dataclass(eq=False)
class Hook:
    """``faults`` by the number of the call, from 1; ``always`` for every other call."""

    faults: dict[int, Fault] = field(default_factory=dict)
    always: Fault | None = None
    calls: int = 0

    def put_in(self, put: Callable[[Any, str, Any], None] = setattr) -> None:
        """Models that are loaded from now on have the hook; ``put`` may be a monkeypatch's."""
        load = loader.load_model

        def load_with_hook(*given: Any) -> DiffusionModel:
            model = load(*given)
            return replace(model, unet=cast(Any, FaultyUNet(model.unet, self)))

        put(loader, "load_model", load_with_hook)

    def seen(self, prediction: Any) -> Any:
        self.calls += 1
        fault = self.faults.get(self.calls, self.always)
        return fault(prediction) if fault else prediction


class FaultyUNet:
    """A UNet whose predictions pass the hook."""

    def __init__(self, unet: Any, hook: Hook) -> None:
        self._unet = unet
        self._hook = hook

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._hook.seen(self._unet(*args, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)


def hangs(until: threading.Event) -> Fault:
    def wait(prediction: Any) -> Any:
        until.wait(60)
        return prediction

    return wait


def main() -> None:
    from afterdetail.server.run import serve

    Hook(always={"device-lost": device_lost}[sys.argv[2]]).put_in()
    serve(port=int(sys.argv[1]), models="tiny")


if __name__ == "__main__":
    main()
