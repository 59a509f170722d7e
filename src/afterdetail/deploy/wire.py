"""What crosses between an ingress and an engine. Pickled by Ray, arrays through its object store:
both ends run the same version, on machines of one owner."""

from __future__ import annotations

from dataclasses import dataclass, field

from afterdetail.engine.job import Progress
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import AfterdetailError
from afterdetail.models.stats import PoolStats
from afterdetail.studio import Order
from afterdetail.types import RGB


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Orders of one wave that share a checkpoint.

    ``seconds`` are left of the picture's time, None for no limit: clocks of two machines differ.
    """

    orders: tuple[Order, ...]
    seconds: float | None = None

    @property
    def checkpoint(self) -> str:
        """The name of the model that should be resident where this goes."""
        return self.orders[0].choice.model.name if self.orders else ""


@dataclass(frozen=True, slots=True)
class Report:
    """An engine's numbers. ``engine`` names its process."""

    engine: str
    stats: EngineStats
    models: PoolStats


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """What an engine tells of a call: how far its orders are, and which have an outcome since.

    Both by the order's index in the call. The first news says no more than that work has begun.
    """

    report: Report
    progress: dict[int, Progress] = field(default_factory=dict)
    outcomes: dict[int, RGB | AfterdetailError] = field(default_factory=dict)
