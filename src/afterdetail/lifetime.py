"""How long the work on one picture may go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from afterdetail.errors import Aborted, DeadlineExceeded


class Lifetime:
    """The time one picture's work has: until its deadline, or until its caller gives up.

    Thread-safe: one thread works and asks :meth:`check`, another may :meth:`end` it.

    Args:
        deadline: in the seconds of ``time.monotonic``; None for no limit.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._ended = False
        self._lock = threading.Lock()
        self._on_end: list[Callable[[], None]] = []

    @property
    def ended(self) -> bool:
        """Whether the caller has given up."""
        return self._ended

    def check(self) -> None:
        """
        Raises:
            Aborted: the caller has given up.
            DeadlineExceeded: the time is over.
        """
        if self._ended:
            raise Aborted("nobody waits for this picture any more")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineExceeded("the time limit has passed")

    def end(self) -> None:
        """The caller gives up. Runs what :meth:`on_end` was given, once."""
        with self._lock:
            self._ended = True
            actions, self._on_end = self._on_end, []
        for action in actions:
            action()

    def on_end(self, action: Callable[[], None]) -> None:
        """Have ``action`` run when the caller gives up; at once if that has happened."""
        with self._lock:
            if not self._ended:
                self._on_end.append(action)
                return
        action()
