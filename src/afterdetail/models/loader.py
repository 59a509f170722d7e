"""Loaded diffusion models: read once, shared by all callers, the least recently used out first."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch

from afterdetail.errors import InvalidInput
from afterdetail.models.autoencoder import load_autoencoder
from afterdetail.models.catalogue import ModelSpec
from afterdetail.models.choose import Choice, LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.folder import NETWORKS, load_folder, weights_in
from afterdetail.models.header import read_header
from afterdetail.models.inversion import Inversion, read_inversion
from afterdetail.models.lora import with_loras
from afterdetail.models.networks import Target
from afterdetail.models.single_file import ZERO_SNR, is_served, load_single_file
from afterdetail.models.stats import PoolStats
from afterdetail.models.store import locate, obtain, verify_once

DEVICES = ("cpu", "cuda", "mps")
TILE = 512
"""Pixels: the side of the pieces that an autoencoder works in where memory is low."""
MOST_INVERSIONS = 64
"""Kept in memory: some kilobytes each."""
SHARE_OF_MEMORY = 0.5
"""What models may take of a device's memory; the rest is for the work."""


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


Key = tuple[ModelSpec, frozenset[LoraUse]]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What a request's jobs are painted with, in memory."""

    model: DiffusionModel
    refiner: DiffusionModel | None = None
    inversions: tuple[Inversion, ...] = ()


class ModelPool:
    """As many models in memory as fit ``limit``, and at least the one asked for last.

    A model with LoRAs is one of its own, which shares all layers that they leave alone.

    A model is read in the thread that first asks for it while others go on; room is made before.
    Jobs in flight keep the model they started with alive, so memory may be above the limit until
    they are done.

    Args:
        limit: bytes of weights; None: half of the memory that they are in.
        low_memory: keep the weights in host memory, from where the engine fetches what it needs,
            and have autoencoders work in tiles.
        downloads: get what is not on this machine from the hub when it is first asked for.
    """

    def __init__(
        self,
        device: torch.device,
        limit: int | None = None,
        *,
        low_memory: bool = False,
        downloads: bool = True,
    ) -> None:
        self.device = device
        self.downloads = downloads
        self.dtype = torch.float32 if device.type == "cpu" else torch.float16
        self.low_memory = low_memory
        home = torch.device("cpu") if low_memory else device
        self.limit = int(memory_of(home) * SHARE_OF_MEMORY) if limit is None else limit
        self._home = home
        self._models: OrderedDict[Key, DiffusionModel] = OrderedDict()
        self._coming: dict[Key, int] = {}
        self._lock = threading.Lock()
        self._turns: dict[Key, threading.Lock] = {}
        self._loads = 0
        self._load_seconds = 0.0

    def load(self, choice: Choice) -> Loaded:
        """Every model of a choice. Raises as :meth:`get`."""
        self._obtain(*choice.embeddings)
        inversions = tuple(_inversion(spec) for spec in choice.embeddings)
        model = self.get(choice.model, choice.loras)
        refiner = self.get(choice.refiner) if choice.refiner else None
        return Loaded(model, refiner, inversions)

    def get(self, spec: ModelSpec, loras: frozenset[LoraUse] = frozenset()) -> DiffusionModel:
        """The loaded model of a catalogue entry, with LoRAs applied. The same for the same set.

        Raises:
            ModelUnavailable: weights are not on this machine.
            WeightsError: they are there but damaged, or of another base.
            InvalidInput: a LoRA is damaged or does not fit.
        """
        plain = self._held((spec, frozenset()), lambda: self._read(spec))
        if not loras:
            return plain
        adapted = self._held((spec, loras), lambda: self._adapted(plain, loras))
        with self._lock:  # a plain model goes only after all that share with it
            if (spec, frozenset()) in self._models:
                self._models.move_to_end((spec, frozenset()))
        return adapted

    def _read(self, spec: ModelSpec) -> DiffusionModel:
        """A model from its files, after those have left that it leaves no room for."""
        self._obtain(spec)
        key = spec, frozenset[LoraUse]()
        coming = expected_bytes(spec, self.dtype)  # reads files: not while others wait
        with self._lock:
            self._coming[key] = coming
            self._shrink(keep=0)
        try:
            model = load_model(spec, self._home, self.dtype)
        finally:
            with self._lock:
                del self._coming[key]
        return for_low_memory(model, self.device) if self.low_memory else model

    def _adapted(self, plain: DiffusionModel, loras: frozenset[LoraUse]) -> DiffusionModel:
        self._obtain(*(use.spec for use in loras))
        return with_loras(plain, loras)

    def _obtain(self, *specs: ModelSpec) -> None:
        if self.downloads:
            for spec in specs:
                obtain(spec)

    @property
    def resident_bytes(self) -> int:
        """Memory of the weights that are kept."""
        with self._lock:
            return resident_bytes(self._models.values())

    @property
    def stats(self) -> PoolStats:
        """From any thread."""
        with self._lock:
            held = list(self._models.values())
            return PoolStats(self._loads, self._load_seconds, len(held), resident_bytes(held))

    def _held(self, key: Key, make: Callable[[], DiffusionModel]) -> DiffusionModel:
        """The model of ``key``, made if need be: once, however many ask for it at a time."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        try:
            with turn:
                model = self._models.get(key) or self._made(make)
                with self._lock:
                    self._models[key] = model
                    self._models.move_to_end(key)
                    self._shrink()
        finally:
            with self._lock:
                self._turns.pop(key, None)
        return model

    def _made(self, make: Callable[[], DiffusionModel]) -> DiffusionModel:
        began = time.monotonic()
        model = make()
        with self._lock:
            self._loads += 1
            self._load_seconds += time.monotonic() - began
        return model

    def _shrink(self, keep: int = 1) -> None:
        """Let models go until those here and those being read are within the limit."""
        coming = sum(self._coming.values())
        while (
            len(self._models) > keep and resident_bytes(self._models.values()) + coming > self.limit
        ):
            self._models.popitem(last=False)


@lru_cache(maxsize=MOST_INVERSIONS)
def _inversion(spec: ModelSpec) -> Inversion:
    return read_inversion(spec)


def load_model(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> DiffusionModel:
    """Read a base, checkpoint or refiner into memory, from a folder or a single file.

    A file whose entry has a checksum is read twice the first time: what is served is what was
    checked, also where it was pulled, since nothing tells that it is still the same. Of a folder
    there is none.

    Raises:
        ModelUnavailable, WeightsError: as :meth:`ModelPool.get`.
    """
    assert spec.base is not None, "the catalogue gives every diffusion model a base"
    path = _verified(spec)
    vae = None
    if spec.vae is not None:
        file = _verified(spec.vae)
        vae = load_autoencoder(spec.vae.name, spec.base, file, Target(device, dtype))
    given = (spec.name, spec.base, path, device, dtype, vae)
    if path.is_file():
        model = load_single_file(*given, kind=spec.kind, prediction=spec.prediction)
    else:
        model = load_folder(*given, kind=spec.kind)
    return replace(
        model, clip_skip=spec.clip_skip, scheduler_config=_schedule(model.scheduler_config, spec)
    )


def _verified(spec: ModelSpec) -> Path:
    """Where a model lies, after its checksum was compared. Raises as :func:`load_model`."""
    path = locate(spec)
    verify_once(spec, path)
    return path


def _schedule(config: Mapping[str, Any], spec: ModelSpec) -> Mapping[str, Any]:
    """The noise schedule that a file tells, unless its entry knows better."""
    told = {"prediction_type": str(spec.prediction)} if spec.prediction else {}
    return {**config, **told, **(ZERO_SNR if spec.zero_snr else {})}


def for_low_memory(model: DiffusionModel, device: torch.device) -> DiffusionModel:
    """A model that is run on ``device`` from where it lies, its autoencoder in tiles."""
    vae: Any = model.vae
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE
    vae.tile_latent_min_size = TILE // model.latent_factor
    return replace(model, device=device)


def expected_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Memory that a model's weights will take, from the headers of its files."""
    path = locate(spec)
    if path.is_file():
        shapes = [s for name, s in read_header(path).shapes.items() if is_served(name)]
    else:
        folders = [path / part for part in NETWORKS if (path / part).is_dir()]
        files = [file for folder in folders for file in weights_in(folder)]
        shapes = [shape for file in files for shape in read_header(file).shapes.values()]
    return sum(map(math.prod, shapes)) * dtype.itemsize


def resident_bytes(models: Iterable[DiffusionModel]) -> int:
    """Memory of the models' weights; what several share counts once."""
    pieces: dict[int, int] = {}
    for model in models:
        pieces |= model.storages
    return sum(pieces.values())


def memory_of(device: torch.device) -> int:
    """Bytes of memory a device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
