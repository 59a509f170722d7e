"""Who is let in, and when the others may come again: pure policy, no I/O, no clock of its own.

The queue is bounded by work, not by requests. The unit is the engine's *row-step*: one row of a
UNet forward through one step. A request is let in before its body is read, as an average one; once
it is parsed its steps and guidance are known; how many objects it has, only the detector finds out,
so that is an average until the engine has the jobs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from afterdetail.engine.stats import EngineStats
from afterdetail.errors import QueueFull, RateLimited

FIRST_GUESS = 36.0
"""Row-steps of one object at the defaults: 18 steps, with guidance."""
MEMORY = 20
"""Requests, or engine seconds, after which an old measurement counts little."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in the house at once.

    ``work`` is row-steps; ``seconds`` the same as time at the engine's measured speed; ``size`` the
    bytes of all bodies. ``fair`` keeps room for other clients. ``per_minute`` is requests of one
    client, 0 for any number.
    """

    work: float
    seconds: float
    size: int
    fair: bool = False
    per_minute: int = 0


@dataclass(slots=True, eq=False)
class Permit:
    """One request that was let in: whose, and how much of the house it takes.

    ``began`` is when its turn came, in nanoseconds of ``time.time_ns``; 0 while it waits.
    """

    client: str
    work: float
    size: int
    began: int = 0

    @property
    def at_work(self) -> bool:
        return self.began > 0


class Options(Protocol):
    """What of a request says how much work it is."""

    @property
    def steps(self) -> int: ...
    @property
    def strength(self) -> float: ...
    @property
    def cfg_scale(self) -> float: ...
    @property
    def max_num_detections(self) -> int | None: ...
    @property
    def union_masks(self) -> bool: ...


@dataclass(slots=True)
class Admission:
    """Lets requests in while there is room. For one thread: the event loop's.

    Args:
        engine: its numbers at the moment.
        clock: seconds, as ``time.monotonic``.
    """

    limits: Limits
    engine: Callable[[], EngineStats]
    clock: Callable[[], float]
    _inside: set[Permit] = field(default_factory=set)
    _speed: Speedometer = field(default_factory=lambda: Speedometer())
    _objects: Average = field(default_factory=lambda: Average(1.0))
    _work: Average = field(default_factory=lambda: Average(FIRST_GUESS))
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def admit(self, client: str, size: int) -> Permit:
        """A place for a request with a body of ``size`` bytes.

        Raises:
            RateLimited: the client has sent too many this minute.
            QueueFull: there is no room; with the seconds until there should be.
        """
        self._check_rate(client)
        ahead = self.ahead
        taken = sum(permit.size for permit in self._inside)
        room = self.room
        if taken and taken + size > self.limits.size:
            raise self._full(ahead * (taken + size - self.limits.size) / taken)
        if ahead >= room:
            raise self._full(ahead - room + self._work.value)
        mine = sum(permit.work for permit in self._inside if permit.client == client)
        # Choudhury & Hahne 1998: a client may have as much as is left over. One alone gets half of
        # the queue, two get a third each, and whoever is new always finds room.
        if self.limits.fair and mine and mine >= room - ahead:
            excess = (mine - room + ahead) / 2  # what it takes off its own, it adds to what is left
            raise self._full(max(excess, self._work.value), whose="your share of the queue is full")
        return self.readmit(client, size)

    def readmit(self, client: str, size: int) -> Permit:
        """A place for a request that was let in before a restart, whether there is room or not."""
        permit = Permit(client, self._work.value, size)
        self._inside.add(permit)
        return permit

    def know(self, permit: Permit, options: Options) -> None:
        """The request has been read: its work is that of its options, for an average picture."""
        rows = 2 if options.cfg_scale > 1 else 1
        objects = min(self._objects.value, options.max_num_detections or math.inf)
        steps = max(1, int(options.steps * options.strength))
        permit.work = rows * steps * (1.0 if options.union_masks else objects)
        self._work.add(permit.work)

    def learn(self, objects: float) -> None:
        """A picture had so many objects to repaint in each stage."""
        self._objects.add(objects)

    def release(self, permit: Permit) -> None:
        """The request is over, however it ended."""
        self._inside.discard(permit)

    @property
    def requests(self) -> int:
        return len(self._inside)

    @property
    def size(self) -> int:
        """Bytes of all bodies inside."""
        return sum(permit.size for permit in self._inside)

    @property
    def ahead(self) -> float:
        """Row-steps that a newcomer waits for: the engine's own count where it has the jobs."""
        waiting = sum(permit.work for permit in self._inside if not permit.at_work)
        working = sum(permit.work for permit in self._inside if permit.at_work)
        return waiting + max(working, self.engine().backlog)

    @property
    def room(self) -> float:
        """Row-steps that may be inside before the next request is refused."""
        speed = self.speed
        return min(self.limits.work, self.limits.seconds * speed if speed else math.inf)

    @property
    def speed(self) -> float:
        """Row-steps a second while the engine works; 0 until it has."""
        return self._speed.read(self.engine())

    def _check_rate(self, client: str) -> None:
        if not self.limits.per_minute:
            return
        bucket = self._buckets.setdefault(client, Bucket(self.limits.per_minute, self.clock()))
        wait = bucket.take(self.clock())
        if wait:
            text = f"more than {self.limits.per_minute} requests a minute; try again later"
            raise RateLimited(text, retry_after=math.ceil(wait))

    def _full(self, excess: float, whose: str = "the queue is full") -> QueueFull:
        seconds = excess / self.speed if self.speed else 0.0
        return QueueFull(f"{whose}; try again later", retry_after=max(1, math.ceil(seconds)))


@dataclass(slots=True)
class Average:
    """Of about the last ``MEMORY`` values; a guess until there is one."""

    value: float
    _count: int = 0

    def add(self, value: float) -> None:
        self._count = min(self._count + 1, MEMORY)
        self.value += (value - self.value) / self._count


@dataclass(slots=True)
class Speedometer:
    """The engine's speed over its last busy seconds, from totals read now and then."""

    speed: float = 0.0
    _last: EngineStats = field(default_factory=EngineStats)

    def read(self, now: EngineStats) -> float:
        """Row-steps a second."""
        seconds = now.busy_seconds - self._last.busy_seconds
        if seconds > 0 and now.rows > self._last.rows:
            latest = (now.rows - self._last.rows) / seconds
            weight = 1 - math.exp(-seconds / MEMORY) if self.speed else 1.0
            self.speed += weight * (latest - self.speed)
            self._last = now
        return self.speed


@dataclass(slots=True)
class Bucket:
    """A token bucket: ``per_minute`` at once, and as many again each minute."""

    per_minute: int
    _since: float
    _tokens: float | None = None

    def take(self, now: float) -> float:
        """0 if there was one to take, else the seconds until there is."""
        rate = self.per_minute / 60
        tokens = self.per_minute if self._tokens is None else self._tokens
        tokens = min(self.per_minute, tokens + (now - self._since) * rate)
        self._since = now
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / rate
        self._tokens = tokens - 1
        return 0.0


def next_client(waiting: Iterable[str], working: Counter[str], served: Mapping[str, int]) -> str:
    """Whose turn it is: the client with the fewest requests at work, then who had a turn longest
    ago, then who waits longest.

    Args:
        waiting: the client of each request that waits, the first come first; not empty.
        served: the number of each client's last turn; they grow.
    """
    return min(waiting, key=lambda client: (working[client], served.get(client, 0)))
