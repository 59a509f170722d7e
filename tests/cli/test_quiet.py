"""Libraries' notes are hidden, our own lines and those of debugging are not."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from afterdetail.cli.quiet import quiet_libraries


def speak() -> None:
    """As compiled code does, as Python libraries do, as we do."""
    os.write(2, b"INFO: compiled\n")
    warnings.warn("from a library", stacklevel=1)
    sys.stderr.write("ours\n")


def test_only_our_own_lines_are_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_libraries():
        speak()
    assert capfd.readouterr().err == "ours\n"


def test_everything_is_heard_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet_libraries():
        raise KeyError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_debugging_hears_it_all(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERDETAIL_DEBUG", "1")
    with pytest.warns(UserWarning, match="from a library"), quiet_libraries():
        speak()
    assert capfd.readouterr().err == "INFO: compiled\nours\n"
