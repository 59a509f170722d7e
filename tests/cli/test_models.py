"""``afterdetail models``: the catalogue, as a person and as a program reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import afterdetail
from afterdetail.cli.main import main
from afterdetail.models.catalogue import built_in
from afterdetail.prompts.styles import names

TINY = Path(afterdetail.__file__).parent / "models" / "tiny"


@pytest.fixture(autouse=True)
def _empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_list_has_every_model_and_whether_it_is_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert tuple(listed) == built_in().names()
    assert listed["tiny"] == {
        "name": "tiny",
        "kind": "base",
        "base": "sd15",
        "present": True,
        "path": str(TINY),
        "licence": "Apache-2.0 (data: CC0-1.0)",
    }
    assert (listed["sdxl"]["present"], listed["sdxl"]["path"]) == (False, None)


def test_the_table_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in built_in().names())


def test_a_catalogue_of_ones_own_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "models.toml"
    file.write_text('[[model]]\nname = "mine"\nkind = "base"\nbase = "sd15"\npath = "mine"\n')
    assert main(["models", "list", "--models", str(file), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["name"], first["path"]) == ("mine", str(tmp_path / "mine"))


@pytest.mark.parametrize("command", ["path", "pull"])
def test_the_place_of_an_embedded_model_is_printed(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(["models", command, "tiny"]) == 0
    assert capsys.readouterr().out == f"{TINY}\n"


def test_the_styles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "styles"]) == 0
    assert tuple(capsys.readouterr().out.splitlines()) == names()


def test_as_json_styles_have_their_wording(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "styles", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["base"] == {"name": "base", "prompt": "{prompt}", "negative_prompt": ""}
    assert "{prompt}" in listed["Watercolor"]["prompt"]
