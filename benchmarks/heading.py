"""The first lines of a page of results: when, where and with what it was taken."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOAD = os.getloadavg()[0]
"""Of the machine before the benchmark: above 0 others were at work."""


def heading(title: str, packages: Sequence[str] = ()) -> str:
    """Ends with a line break; ``packages`` are named with their versions."""
    parts = (
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"commit {_commit()}",
        f"{os.cpu_count()} shared {platform.machine()} cores (load average {LOAD:.1f} before)",
        f"Python {platform.python_version()}",
        *(f"{name} {_version(name)}" for name in packages),
    )
    return f"# {title}\n\n{', '.join(parts)}.\n"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # copied without its history
        return "unknown"
    return found.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
