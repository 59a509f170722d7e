"""``afterdetail models``: the catalogue, as a person and as a program reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    file = tmp_path / "line.safetensors"
    down, up = torch.ones(1, 768), torch.ones(1280, 1)
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, file)
    return file


def test_a_file_is_added_checked_and_removed(
    tmp_path: Path, lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = str(tmp_path / "models.toml")
    assert main(["models", "add", str(lora), "--models", catalogue, "--name", "thin"]) == 0
    assert capsys.readouterr().out == f"thin: sd15 lora, in {catalogue}\n"
    assert main(["models", "check", "thin", "--models", catalogue]) == 0
    assert capsys.readouterr().out == "thin: ok\n"
    lora.write_bytes(b"")
    assert main(["models", "check", "thin", "--models", catalogue]) == 1
    assert "thin: " in capsys.readouterr().out
    assert main(["models", "remove", "thin", "--models", catalogue]) == 0
    assert main(["models", "list", "--models", catalogue, "--json"]) == 0
    assert "thin" not in capsys.readouterr().out.splitlines()[-1]


def test_what_is_no_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.ckpt"
    file.write_bytes(b"x")
    assert main(["models", "add", str(file), "--models", str(tmp_path / "models.toml")]) != 0
    said = capsys.readouterr().err
    assert "must be .safetensors" in said
    assert len(said.strip().splitlines()) == 1
