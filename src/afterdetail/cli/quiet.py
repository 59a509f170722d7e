"""Keeping the notes that libraries write to stderr away from people who asked for a picture."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

STDERR = 2


def debugging() -> bool:
    """Whether ``AFTERDETAIL_DEBUG=1``: nothing is kept away, tracebacks included."""
    return os.environ.get("AFTERDETAIL_DEBUG") == "1"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide warnings, and what compiled code (LiteRT) writes to file descriptor 2.

    Python's own ``sys.stderr`` goes on to where it went.
    """
    if debugging():
        yield
        return
    # Both libraries read these when they are first imported, which is after this.
    for variable in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    with warnings.catch_warnings(), _compiled_code_unheard():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _compiled_code_unheard() -> Iterator[None]:
    sys.stderr.flush()
    on_descriptor = sys.stderr is sys.__stderr__  # else somebody has redirected it already
    with (
        os.fdopen(os.dup(STDERR), "w", buffering=1, encoding="utf-8", errors="replace") as heard,
        Path(os.devnull).open("wb") as unheard,
    ):
        os.dup2(unheard.fileno(), STDERR)
        try:
            with redirect_stderr(heard if on_descriptor else sys.stderr):
                yield
        finally:
            os.dup2(heard.fileno(), STDERR)
