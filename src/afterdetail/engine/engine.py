"""The engine's tick: schedule, run, postprocess. No threads here; see ``service``."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from afterdetail.engine import decoder, denoiser, encoder, memory
from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.job import Job, Progress, Running
from afterdetail.engine.placement import Placement, Resident
from afterdetail.engine.prompts import PromptCache
from afterdetail.engine.scheduler import Entry, Scheduler, Stage
from afterdetail.engine.split import describe, run_split
from afterdetail.errors import AfterdetailError, DeadlineExceeded
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB, Size

R = TypeVar("R")

MOST_ROWS_OF_A_JOB = 2


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A job that left the engine: its picture, at the size it came with, or why there is none."""

    number: int
    outcome: RGB | AfterdetailError


@dataclass(slots=True, eq=False)
class Slot:
    """A job in the engine: as it came, as the policy sees it, and, once encoded, as it runs."""

    job: Job
    entry: Entry
    running: Running | None = None

    @property
    def state(self) -> Running:
        assert self.running is not None, "a job is encoded before its first step"
        return self.running


@dataclass(slots=True)
class Engine:
    """Denoises all jobs it holds together, one step of one batch at each :meth:`step`.

    Args:
        scheduler: which jobs run in a tick.
        pinned_rows: run every forward with exactly this many rows (a guided job has two), so
            that not even the last bit of a result depends on the other jobs. Costs the speed
            of batching, unless the backend computes rows apart.
        backend: what runs the UNet.
        placement: where the networks are. With another than ``Resident`` the backend must be
            eager: the others keep copies or addresses of the weights.
    """

    scheduler: Scheduler = field(default_factory=Scheduler)
    pinned_rows: int | None = None
    backend: Backend = field(default_factory=EagerBackend)
    placement: Placement = field(default_factory=Resident)
    _prompts: PromptCache = field(init=False)
    _slots: dict[int, Slot] = field(default_factory=dict)
    _finished: list[Finished] = field(default_factory=list)
    _count: int = 0
    forwards: int = 0
    rows: int = 0
    capacity: int = 0
    """Rows that all forwards could have had."""

    def __post_init__(self) -> None:
        self._prompts = PromptCache(placement=self.placement)
        if self.pinned_rows is not None and not self.backend.rows_apart:
            self.scheduler.row_limit = self.pinned_rows

    @property
    def idle(self) -> bool:
        return not (self._slots or self._finished)

    def prepare(self, model: DiffusionModel, sizes: Sequence[Size]) -> None:
        """Compile what there is to compile, so that the first job of these sizes need not wait.

        Safe from any thread.
        """
        self.backend.prepare(model, sizes)

    def add(self, job: Job) -> int:
        """Take a job; returns its number. At the next step it joins, or leaves if it cannot run.

        Raises:
            DeviceLost: as :meth:`step`.
        """
        self._count += 1
        (taken,) = run_split([job], self._limited)
        if isinstance(taken, AfterdetailError):
            self._finished.append(Finished(self._count, taken))
            return self._count
        entry = Entry(
            number=self._count,
            model=job.model,
            rows=job.rows,
            waiting_since=time.monotonic(),
            deadline=job.deadline,
            shape=_shape(job.model, job),
            owner=job.owner,
        )
        self._slots[entry.number] = Slot(job, entry)
        self.scheduler.add(entry)
        return entry.number

    def _limited(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs, once it is known how many rows like theirs there may be in a forward."""
        for job in jobs:
            for model in (job.model, job.refiner):
                if model and not self.scheduler.knows(_shape(model, job)):
                    self.scheduler.limit(_shape(model, job), self._row_limit(model, job))
        return list(jobs)

    def _row_limit(self, model: DiffusionModel, job: Job) -> int:
        settled = self.placement.settled(model)  # only here: held on, the next would come beside it
        return memory.row_limit(settled, _size(job), self.backend.rows_on_cpu(settled))

    def abort(self, number: int) -> None:
        """Forget a job, whatever its state. Unknown numbers are fine: it may just have finished."""
        self._slots.pop(number, None)
        self.scheduler.remove(number)

    def progress(self, number: int) -> Progress:
        slot = self._slots.get(number)
        return slot.running.progress if slot and slot.running else Progress()

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        """Run one tick and return the jobs that left: done, failed or out of time.

        Raises:
            DeviceLost: nothing will run any more in this process.
        """
        now = time.monotonic()
        for entry in self.scheduler.expired(now):
            self._leave(self._slots[entry.number], DeadlineExceeded("the time limit has passed"))
        tick = self.scheduler.next_tick(now)
        self._encode([self._slots[entry.number] for entry in tick.encode])
        self._denoise([self._slots[entry.number] for entry in tick.denoise])
        self._decode([self._slots[entry.number] for entry in tick.decode])
        finished, self._finished = self._finished, []
        return finished

    def _encode(self, slots: Sequence[Slot]) -> None:
        for group in self._groups(slots):
            started = run_split(group, self._encoded)
            self._apply(group, started, _start)

    def _encoded(self, group: Sequence[Slot]) -> list[Running]:
        """New jobs, or jobs that their refiner takes over, ready for the next step."""
        # Embeddings depend on their neighbours by rounding: when rows are pinned none are kept.
        prompts = PromptCache(placement=self.placement) if self.pinned_rows else self._prompts
        if group[0].running is None:
            return encoder.encode([slot.job for slot in group], prompts, self.placement)
        return encoder.hand_over([slot.state for slot in group], prompts)

    def _denoise(self, slots: Sequence[Slot]) -> None:
        predictions = run_split([slot.state for slot in slots], self._predicted, self._shrink)
        if slots:
            self.forwards += 1
            self.rows += sum(slot.job.rows for slot in slots)
            self.capacity += self.scheduler.limit_of(slots[0].entry.shape)
        self._apply(slots, predictions, _advance)

    def _predicted(self, batch: Sequence[Running]) -> list[torch.Tensor]:
        model = self.placement.settled(batch[0].model)
        return denoiser.predict(batch, model, self.backend, self.pinned_rows)

    def _decode(self, slots: Sequence[Slot]) -> None:
        for group in self._groups(slots):
            states = [slot.state for slot in group]
            pictures = run_split(states, lambda batch: decoder.decode(batch, self.placement))
            self._apply(group, pictures, lambda slot, picture: self._leave(slot, picture))

    def _groups(self, slots: Iterable[Slot]) -> list[list[Slot]]:
        """Slots that may be encoded or decoded together; each alone when rows are pinned."""
        groups: dict[Hashable, list[Slot]] = {}
        for slot in slots:
            alone = slot.entry.number if self.pinned_rows else None
            key = slot.job.image.shape, slot.running is None, alone
            groups.setdefault(key, []).append(slot)
        return list(groups.values())

    def _apply(
        self,
        slots: Sequence[Slot],
        results: Sequence[R | AfterdetailError],
        then: Callable[[Slot, R], None],
    ) -> None:
        """Hand each slot its part of a batch's results; one that fails leaves alone."""
        for slot, result in zip(slots, results, strict=True):
            if isinstance(result, AfterdetailError):
                self._leave(slot, result)
                continue
            try:
                then(slot, result)
            except Exception as error:
                self._leave(slot, describe(error))

    def _shrink(self, batch: Sequence[Running]) -> None:
        """These rows did not fit into memory together: from now on at most half as many."""
        rows = sum(running.job.rows for running in batch)
        shape = _shape(batch[0].model, batch[0].job)
        self.scheduler.limit(shape, max(MOST_ROWS_OF_A_JOB, rows // 2))

    def _leave(self, slot: Slot, outcome: RGB | AfterdetailError) -> None:
        self.abort(slot.entry.number)
        self._finished.append(Finished(slot.entry.number, outcome))


def _start(slot: Slot, running: Running) -> None:
    slot.running = running
    slot.entry.key = (slot.job.image.shape, running.embeddings.shape[1])
    slot.entry.stage = Stage.DENOISE
    _move_on(slot)


def _advance(slot: Slot, prediction: torch.Tensor) -> None:
    denoiser.advance(slot.state, prediction)
    _move_on(slot)


def _move_on(slot: Slot) -> None:
    """Once its model has run all its steps, a job goes to the refiner or, at last, to pixels.

    The refiner first reads the prompts, as with a new job; the autoencoder that made the latents is
    the one that can read them.
    """
    slot.entry.leaving = slot.state.leaving
    if not slot.state.done:
        return
    refiner = slot.state.successor
    slot.entry.stage = Stage.ENCODE if refiner else Stage.DECODE
    slot.entry.model = refiner or slot.job.model
    slot.entry.shape = _shape(refiner or slot.job.model, slot.job)


def _size(job: Job) -> Size:
    height, width = job.mask.shape
    return width, height


def _shape(model: DiffusionModel, job: Job) -> Hashable:
    """What decides how much memory a row of a forward takes."""
    return model.name, _size(job)
