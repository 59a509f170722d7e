"""The page on models says what the commands say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from afterdetail.cli.main import main
from afterdetail.models.catalogue import load_catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ADDED = re.findall(r"^\$ afterdetail models add (\S+)\n(.+)$", PAGE, re.MULTILINE)


TEXT_LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {
    f"{TEXT_LAYER}.lora_down.weight": torch.ones(1, 768),
    f"{TEXT_LAYER}.lora_up.weight": torch.ones(320, 1),
}


def test_files_are_added_as_the_page_says(
    sd15: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bytes_of = {
        "realistic.safetensors": sd15.file.read_bytes(),
        "anime.safetensors": sd15.file.read_bytes(),
        "freckles.safetensors": save(LORA),
        "easynegative.safetensors": save({"emb_params": torch.ones(8, 768)}),
    }
    assert [file for file, _ in ADDED] == list(bytes_of)
    monkeypatch.chdir(tmp_path)
    for file, said in ADDED:
        (tmp_path / file).write_bytes(bytes_of[file])
        assert main(["models", "add", file]) == 0
        assert capsys.readouterr().out.strip() == said
    names = load_catalogue(tmp_path / "models.toml").names()
    assert names[:4] == ("realistic", "anime", "freckles", "easynegative")
