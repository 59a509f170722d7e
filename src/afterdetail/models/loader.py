"""Loaded diffusion models: read once, shared by all callers, the least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from afterdetail.errors import InvalidInput, ModelUnavailable
from afterdetail.models.catalogue import ModelSpec
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.sd15 import load_sd15
from afterdetail.models.store import locate
from afterdetail.options import Base

LOADERS: Mapping[Base, Callable[[str, Path, torch.device, torch.dtype], DiffusionModel]] = {
    Base.SD15: load_sd15,
}
DEVICES = ("cpu", "cuda", "mps")


def pick_device(name: str | None) -> torch.device:
    """The device of this name, or the fastest there is.

    Raises:
        InvalidInput: no such device, or not on this machine.
    """
    if name is None:
        return next(torch.device(kind) for kind in ("cuda", "mps", "cpu") if _is_there(kind))
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise InvalidInput(
            "device_unknown",
            f"unknown device {name!r}; known: {', '.join(DEVICES)}",
            field="device",
        )
    if not _is_there(kind):
        raise InvalidInput("device_unknown", f"this machine has no {kind} device", field="device")
    return torch.device(name)


def _is_there(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or torch.backends.mps.is_available()


class ModelPool:
    """At most ``capacity`` models in memory.

    A model is read in the thread that first asks for it while others go on; jobs in flight keep
    the model they started with alive.
    """

    def __init__(self, device: torch.device, capacity: int = 2) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "cpu" else torch.float16
        self._capacity = capacity
        self._models: OrderedDict[ModelSpec, DiffusionModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[ModelSpec, threading.Lock] = {}

    def get(self, spec: ModelSpec) -> DiffusionModel:
        """The loaded model of a catalogue entry.

        Raises:
            ModelUnavailable: its weights are not on this machine, or its base has no loader.
            WeightsError: they are there but damaged.
        """
        with self._lock:
            turn = self._loading.setdefault(spec, threading.Lock())
        with turn:  # callers who want the same model wait for one read of it
            model = self._models.get(spec) or self._load(spec)
        with self._lock:
            self._models[spec] = model
            self._models.move_to_end(spec)
            while len(self._models) > self._capacity:
                self._models.popitem(last=False)
        return model

    def _load(self, spec: ModelSpec) -> DiffusionModel:
        load = LOADERS.get(spec.base) if spec.base else None
        if load is None:
            raise ModelUnavailable(
                f"{spec.name}: no {spec.base} models in this version; served: sd15",
                field="inpainting_base_model",
            )
        return load(spec.name, locate(spec), self.device, self.dtype)
