"""What the engine has done and has before it, in numbers. No torch: the server counts with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Totals since the start, then the state at this moment.

    The unit of work is the *row-step*: one row of a UNet forward through one step. A guided job
    has two rows. ``rows`` of ``capacity`` is how full the forwards were; ``backlog`` the row-steps
    that the jobs at hand still need; ``busy_seconds`` the time spent in ticks.
    """

    forwards: int = 0
    rows: int = 0
    capacity: int = 0
    busy_seconds: float = 0.0
    jobs_done: int = 0
    jobs_failed: int = 0
    jobs: int = 0
    backlog: int = 0
