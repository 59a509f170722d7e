"""The command line as a person runs it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]


@pytest.fixture(scope="session")
def photos() -> Path:
    return Path(__file__).parents[1] / "data" / "photos"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of this process without our own settings, and with an empty model cache."""
    ours = {name for name in os.environ if name.startswith("AFTERDETAIL_")}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hub"))}


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """``run("detect", file, "--json")``; keyword arguments are environment variables."""

    def run(*arguments: str | Path, **variables: str) -> Finished:
        return subprocess.run(
            [sys.executable, "-m", "afterdetail", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**environment, **variables},
            timeout=120,
            check=False,
        )

    return run
