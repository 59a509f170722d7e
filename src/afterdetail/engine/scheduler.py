"""Which jobs run in the next tick: pure policy, no tensors.

A job passes three stages: *encode* (text and picture to embeddings and latents), *denoise* (its
steps), *decode* (latents to pixels). One tick encodes a few, runs one step of one batch, and
decodes a few, so that neither end of a job's life stalls the jobs in the middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


@dataclass(slots=True, eq=False)
class Entry:
    """A job as the policy sees it.

    ``model`` says which weights it needs; ``key`` which jobs it may share a UNet forward with,
    known once it is encoded; ``rows`` how many rows of that forward it takes; ``shape`` what its
    rows are like, in memory. ``waiting_since`` is when it arrived, later when a tick last advanced
    it (seconds). ``owner`` is whose job it is: owners come in in turn. ``leaving`` says that the
    next step is its last.
    """

    number: int
    model: Hashable
    rows: int
    waiting_since: float
    deadline: float | None = None
    key: Hashable = None
    stage: Stage = Stage.ENCODE
    shape: Hashable = None
    owner: Hashable = None
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """What to run now, all of one model. ``denoise`` entries share one key."""

    encode: tuple[Entry, ...] = ()
    denoise: tuple[Entry, ...] = ()
    decode: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.encode or self.denoise or self.decode)


@dataclass(slots=True)
class Scheduler:
    """Chooses the next tick.

    Args:
        row_limit: most UNet rows of a model in flight, and so in a forward. A job beyond it waits
            before its first step, so that memory is bounded and every job in flight moves at its
            key's next turn. A shape may have a lower limit, see :meth:`limit`.
        codec_limit: most jobs encoded, and most decoded, in one tick: what bounds the time a step
            waits for text and autoencoder work.
        turn: seconds a model keeps the engine while jobs of another wait.
    """

    row_limit: int = 64
    codec_limit: int = 4
    turn: float = 0.5
    _entries: dict[int, Entry] = field(default_factory=dict)
    _limits: dict[Hashable, int] = field(default_factory=dict)
    _model: Hashable = None
    _turn_began: float = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        self._entries[entry.number] = entry

    def remove(self, number: int) -> None:
        self._entries.pop(number, None)

    def limit(self, shape: Hashable, rows: int) -> None:
        """From now on at most this many rows of a shape. A limit is lowered, never raised."""
        self._limits[shape] = min(rows, self.limit_of(shape))

    def limit_of(self, shape: Hashable) -> int:
        return self._limits.get(shape, self.row_limit)

    def knows(self, shape: Hashable) -> bool:
        return shape in self._limits

    def expired(self, now: float) -> list[Entry]:
        """Entries whose deadline has passed."""
        return [e for e in self._entries.values() if e.deadline is not None and e.deadline <= now]

    def next_tick(self, now: float) -> Tick:
        """The work of the next tick; empty when there is none."""
        if not self._entries:
            return Tick()
        self._take_turns(now)
        mine = [entry for entry in self._entries.values() if entry.model == self._model]
        batch = self._batch([entry for entry in mine if entry.stage is Stage.DENOISE])
        tick = Tick(
            encode=self._newcomers(mine, batch),
            denoise=batch,
            decode=tuple(_oldest(mine, Stage.DECODE)[: self.codec_limit]),
        )
        for entry in (*tick.encode, *tick.denoise, *tick.decode):
            entry.waiting_since = now
        return tick

    def _take_turns(self, now: float) -> None:
        """Stay with the model at hand while it has work and its turn lasts or nobody else waits."""
        others = [entry for entry in self._entries.values() if entry.model != self._model]
        has_work = len(others) < len(self._entries)
        if has_work and (not others or now - self._turn_began < self.turn):
            return
        self._model = min(others, key=_waiting).model
        self._turn_began = now

    def _newcomers(self, mine: list[Entry], batch: Sequence[Entry]) -> tuple[Entry, ...]:
        """As many as fit beside the jobs that stay in flight; at least one when idle.

        Those whose last step is in ``batch`` do not stay: their place is filled without a gap.
        The longest waiting first, but of owners those with the fewest jobs inside: a picture with
        sixty faces does not keep one with a single face waiting for all of them.
        """
        gone = {entry.number for entry in batch if entry.leaving}
        staying = (e for e in mine if e.stage is Stage.DENOISE and e.number not in gone)
        rows = sum(entry.rows for entry in staying)
        newcomers: list[Entry] = []
        for entry in _in_turn(mine)[: self.codec_limit]:
            if rows and rows + entry.rows > self.limit_of(entry.shape):
                break
            newcomers.append(entry)
            rows += entry.rows
        return tuple(newcomers)

    def _batch(self, running: list[Entry]) -> tuple[Entry, ...]:
        """Entries of the key that waits longest: all of them, unless its limit was lowered."""
        if not running:
            return ()
        waiting = sorted(running, key=_waiting)
        batch: list[Entry] = []
        rows = 0
        for entry in waiting:
            if entry.key == waiting[0].key and (
                not rows or rows + entry.rows <= self.limit_of(entry.shape)
            ):
                batch.append(entry)
                rows += entry.rows
        return tuple(sorted(batch, key=_arrival))


def _waiting(entry: Entry) -> tuple[float, int]:
    return entry.waiting_since, entry.number


def _arrival(entry: Entry) -> int:
    return entry.number


def _in_turn(mine: Iterable[Entry]) -> list[Entry]:
    """The entries not begun: every owner's first before anybody's second."""
    entries = list(mine)
    inside = Counter(entry.owner for entry in entries if entry.stage is not Stage.ENCODE)
    turns: list[tuple[int, Entry]] = []
    for entry in _oldest(entries, Stage.ENCODE):
        turns.append((inside[entry.owner], entry))
        inside[entry.owner] += 1
    return [entry for _, entry in sorted(turns, key=lambda turn: (turn[0], _waiting(turn[1])))]


def _oldest(entries: Iterable[Entry], stage: Stage) -> list[Entry]:
    return sorted((entry for entry in entries if entry.stage is stage), key=_waiting)
