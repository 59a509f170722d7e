"""What loading models has cost and what they take, in numbers. No torch: the server counts them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Totals since the start, then what is in memory: models, and bytes of their weights.

    A model with LoRAs is one of its own; what models share counts once.
    """

    loads: int = 0
    load_seconds: float = 0.0
    models: int = 0
    resident_bytes: int = 0
