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
        "trigger_words": [],
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
    file.write_text(
        '[[model]]\nname = "mine"\nkind = "base"\nbase = "sd15"\npath = "mine"\n'
        'licence = "MIT"\ntrigger_words = ["fr3ckles", "skin"]\n'
    )
    assert main(["models", "list", "--models", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {
        "name": "mine",
        "kind": "base",
        "base": "sd15",
        "present": True,
        "path": str(tmp_path / "mine"),
        "licence": "MIT",
        "trigger_words": ["fr3ckles", "skin"],
    }
    assert main(["models", "list", "--models", str(file)]) == 0
    mine = next(line for line in capsys.readouterr().out.splitlines() if "mine" in line)
    assert mine.split() == ["mine", "base", "sd15", "yes", "MIT", "fr3ckles,", "skin"]


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


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {
    f"{LAYER}.lora_down.weight": torch.ones(1, 768),
    f"{LAYER}.lora_up.weight": torch.ones(1280, 1),
}


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    file = tmp_path / "line.safetensors"
    save_file(LORA, file)
    return file


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_a_file_is_added_checked_and_removed(
    catalogue: Path, lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ["--models", str(catalogue)]
    assert main(["models", "add", str(lora), *ours, "--name", "thin"]) == 0
    assert capsys.readouterr().out == f"thin: sd15 lora, in {catalogue}\n"
    assert main(["models", "check", "thin", *ours]) == 0
    assert capsys.readouterr().out == "thin: ok\n"
    lora.write_bytes(b"")
    assert main(["models", "check", "thin", *ours]) == 1
    assert "thin: " in capsys.readouterr().out
    assert main(["models", "remove", "thin", *ours]) == 0
    assert capsys.readouterr().out == f"removed thin from {catalogue}\n"
    assert main(["models", "list", *ours, "--json"]) == 0
    assert "thin" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("copied", [False, True])
def test_only_a_copy_is_deleted(catalogue: Path, lora: Path, copied: bool) -> None:
    ours = ["--models", str(catalogue)]
    folder = catalogue.parent / "models"
    assert main(["models", "add", str(lora), *ours, *(["--copy"] if copied else [])]) == 0
    assert folder.exists() == copied
    assert main(["models", "remove", "line", *ours]) == 0
    assert not copied or list(folder.iterdir()) == []
    assert lora.exists()


def test_trigger_words_of_a_file_are_told(
    catalogue: Path, lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(LORA, lora, {"modelspec.trigger_phrase": "fr3ckles"})
    assert main(["models", "add", str(lora), "--models", str(catalogue)]) == 0
    said = f"line: sd15 lora, in {catalogue}; trigger words: fr3ckles\n"
    assert capsys.readouterr().out == said


HERE = """
[[model]]
name = "line"
kind = "lora"
base = "sd15"
path = "line.safetensors"
"""
GONE = HERE.replace("line", "gone")
NOT_PULLED = """
[[model]]
name = "far"
kind = "lora"
base = "sd15"
hub = "someone/things"
file = "far.safetensors"
"""


@pytest.mark.parametrize(
    ("entries", "names", "code", "said"),
    [
        ("", [], 0, {}),
        (HERE, [], 0, {"line": "ok"}),
        (HERE + GONE, [], 1, {"line": "ok", "gone": "the weights of gone are missing"}),
        (HERE + GONE, ["line"], 0, {"line": "ok"}),
        (HERE + GONE, ["gone"], 1, {"gone": "the weights of gone are missing"}),
        (HERE + NOT_PULLED, [], 1, {"line": "ok", "far": "get it with: afterdetail models pull"}),
        ("", ["face_yolov8n"], 1, {"face_yolov8n": "get it with: afterdetail models pull"}),
    ],
)
def test_check_tells_of_all_that_is_named_or_in_ones_own_catalogue(
    catalogue: Path,
    lora: Path,
    capsys: pytest.CaptureFixture[str],
    entries: str,
    names: list[str],
    code: int,
    said: dict[str, str],
) -> None:
    assert lora.exists()
    catalogue.write_text(entries)
    assert main(["models", "check", *names, "--models", str(catalogue)]) == code
    lines = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines()]
    found = {name: text for name, text in lines if text != "ok" or name in said}
    assert found.keys() == said.keys()
    assert all(said[name] in text for name, text in found.items())


def test_check_skips_what_is_built_in_and_was_never_pulled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "check"]) == 0
    names = [line.removesuffix(": ok") for line in capsys.readouterr().out.splitlines()]
    assert names == [spec.name for spec in built_in().models if spec.source.package]


def test_what_is_no_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.ckpt"
    file.write_bytes(b"x")
    assert main(["models", "add", str(file), "--models", str(tmp_path / "models.toml")]) != 0
    said = capsys.readouterr().err
    assert "must be .safetensors" in said
    assert len(said.strip().splitlines()) == 1
