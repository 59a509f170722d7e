"""The seam between a picture's way and what paints: orders go in by name, patches come out.

A picture's way knows a :class:`Studio`, not an engine: it may be of this process
(:class:`LocalStudio`) or, where one machine is not enough, of others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from afterdetail.config import BackendName
from afterdetail.engine.backend import make_backend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job, Progress
from afterdetail.engine.placement import Placement, Resident, Visiting
from afterdetail.engine.scheduler import Scheduler
from afterdetail.engine.service import EngineService, Ticket
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import EngineStopped, InvalidInput
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Catalogue
from afterdetail.models.choose import Choice
from afterdetail.models.loader import Loaded, ModelPool, pick_device
from afterdetail.models.stats import PoolStats
from afterdetail.models.store import obtain
from afterdetail.options import Sampler
from afterdetail.types import RGB, Gray, SizeConditioning

DETERMINISTIC_ROWS = 2
"""Rows of every forward when results must be exact: those of one guided job."""
LONG_TURN = 5.0
"""Seconds a model keeps the engine where each turn begins with fetching its UNet."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """One patch to repaint, as :class:`~afterdetail.engine.job.Job` has it, but with its models by
    name: it holds no network, so it can travel."""

    choice: Choice
    image: RGB
    mask: Gray
    prompt: str
    negative_prompt: str
    sampler: Sampler
    steps: int
    strength: float
    guidance_scale: float
    seed: int
    clip_skip: int | None = None
    size_conditioning: SizeConditioning | None = None
    soft: bool = False


class Commission(Protocol):
    """An order that was taken: its patch to come, its progress, and the way out."""

    @property
    def progress(self) -> Progress: ...

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it is done then."""

    def result(self) -> RGB:
        """Wait for the repainted patch, uint8 ``(H, W, 3)``, the size of the order's.

        Raises:
            AfterdetailError: it failed, was aborted or ran out of time.
        """

    def abort(self) -> None:
        """Stop at the next step; :meth:`result` then raises ``Aborted``."""


class Sitting(Protocol):
    """What one stage of one picture has in a studio: models chosen, for orders to come."""

    def begin(self, orders: Sequence[Order]) -> Sequence[Commission]:
        """Hand in orders of the choices that the sitting was opened for, and wait for nothing but
        what has to be compiled.

        Raises:
            AfterdetailError: the studio takes none now.
        """


class Studio(Protocol):
    """Paints orders, those of all pictures together. Thread-safe."""

    @property
    def device(self) -> torch.device:
        """Where the models are, as far as this process knows."""

    @property
    def stats(self) -> EngineStats: ...

    @property
    def model_stats(self) -> PoolStats: ...

    @property
    def alive(self) -> bool: ...

    @property
    def failure(self) -> EngineStopped | None:
        """Why it is not alive, if it was not closed."""

    @property
    def seconds_since_tick(self) -> float:
        """How long the engine's tick at hand has been running; 0 while there is nothing to do."""

    def load(self, catalogue: Catalogue) -> None:
        """Get every base served ready, from the hub if need be, so that the first order need not
        wait."""

    def open(self, choices: Collection[Choice], lifetime: Lifetime) -> Sitting:
        """Make ready what the orders of one stage will need.

        Args:
            lifetime: the picture's; its deadline is that of all orders.

        Raises:
            AfterdetailError: a model is not there or damaged.
        """

    def close(self) -> None:
        """Let what is under way finish, and end."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalStudio:
    """The models and the engine of this process."""

    pool: ModelPool
    engine: EngineService

    @property
    def device(self) -> torch.device:
        return self.pool.device

    @property
    def stats(self) -> EngineStats:
        return self.engine.stats

    @property
    def model_stats(self) -> PoolStats:
        return self.pool.stats

    @property
    def alive(self) -> bool:
        return self.engine.alive

    @property
    def failure(self) -> EngineStopped | None:
        return self.engine.failure

    @property
    def seconds_since_tick(self) -> float:
        return self.engine.seconds_since_tick

    def load(self, catalogue: Catalogue) -> None:
        """See :class:`Studio`."""
        for spec in catalogue.bases().values():
            obtain(spec)
            self.engine.prepare(self.pool.get(spec), spec.sizes)

    def open(self, choices: Collection[Choice], lifetime: Lifetime) -> LocalSitting:
        """See :class:`Studio`. Raises as :meth:`~afterdetail.models.loader.ModelPool.get`."""
        models = {choice: self.pool.load(choice) for choice in choices}
        return LocalSitting(self.engine, models, lifetime)

    def close(self) -> None:
        """See :class:`Studio`."""
        self.engine.close()


@dataclass(frozen=True, slots=True, eq=False)
class LocalSitting:
    """Keeps the models of a stage alive until its last wave."""

    engine: EngineService
    models: Mapping[Choice, Loaded]
    lifetime: Lifetime

    def begin(self, orders: Sequence[Order]) -> Sequence[Ticket]:
        """See :class:`Sitting`."""
        jobs = [self._job(order) for order in orders]
        sizes = sorted({(job.mask.shape[1], job.mask.shape[0]) for job in jobs})
        for model in {model for job in jobs for model in (job.model, job.refiner) if model}:
            self.engine.prepare(model, sizes)
        return [self.engine.add(job) for job in jobs]

    def _job(self, order: Order) -> Job:
        loaded = self.models[order.choice]
        return Job(
            model=loaded.model,
            refiner=loaded.refiner,
            inversions=loaded.inversions,
            clip_skip=order.clip_skip,
            size_conditioning=order.size_conditioning,
            image=order.image,
            mask=order.mask,
            prompt=order.prompt,
            negative_prompt=order.negative_prompt,
            sampler=order.sampler,
            steps=order.steps,
            strength=order.strength,
            guidance_scale=order.guidance_scale,
            seed=order.seed,
            deadline=self.lifetime.deadline,
            soft=order.soft,
            owner=self.lifetime,
        )


def make_studio(
    device: str | None = None,
    *,
    deterministic: bool = False,
    backend: BackendName | None = None,
    memory: Literal["high", "low"] = "high",
    pool: ModelPool | None = None,
    downloads: bool = True,
) -> LocalStudio:
    """A studio of this process. The arguments are those of :class:`~afterdetail.Detailer`.

    Raises:
        InvalidInput: no such device, backend or amount of memory.
    """
    if memory not in ("high", "low"):
        raise InvalidInput("memory_unknown", f"memory is 'high' or 'low', not {memory!r}")
    low = memory == "low"
    pool = pool or ModelPool(pick_device(device), low_memory=low, downloads=downloads)
    engine = Engine(
        scheduler=Scheduler(turn=LONG_TURN) if low else Scheduler(),
        pinned_rows=DETERMINISTIC_ROWS if deterministic else None,
        backend=make_backend("eager" if low else backend, pool.device),
        placement=_placement(pool),
    )
    return LocalStudio(pool, EngineService(engine))


def _placement(pool: ModelPool) -> Placement:
    """Where memory is low, networks come from host memory, unless that is where they run."""
    return Visiting() if pool.low_memory and pool.device.type != "cpu" else Resident()
