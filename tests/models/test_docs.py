"""The page on models says what the commands say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from afterdetail.cli.main import main
from afterdetail.models.catalogue import load_catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ADDED = re.findall(r"^\$ afterdetail models add (\S+)\n(.+)$", PAGE, re.MULTILINE)


def test_files_are_added_as_the_page_says(
    sd15: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [file for file, _ in ADDED] == [
        "realistic.safetensors",
        "anime.safetensors",
        "freckles.safetensors",
    ]
    monkeypatch.chdir(tmp_path)
    for file, said in ADDED[:2]:
        (tmp_path / file).write_bytes(sd15.file.read_bytes())
        assert main(["models", "add", file]) == 0
        assert capsys.readouterr().out.strip() == said
    assert load_catalogue(tmp_path / "models.toml").names()[:2] == ("realistic", "anime")
    assert len(tomllib.loads((tmp_path / "models.toml").read_text())["model"]) == 2
