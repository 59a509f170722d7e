"""The server's door: who is inside when it is told to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Door:
    """Open until the server is told to end; then whoever is inside may finish."""

    closing: bool = False
    count: int = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
