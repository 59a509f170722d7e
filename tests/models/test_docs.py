"""The page on models says what the commands say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from afterdetail import Detailer
from afterdetail.cli.main import main
from afterdetail.models.catalogue import Kind, built_in, load_catalogue
from afterdetail.models.store import locate
from afterdetail.options import parse_options
from afterdetail.server.app import create_app

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


BODIES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: "-".join(body))
def test_requests_of_the_page_need_nothing_that_it_does_not_add(body: dict[str, object]) -> None:
    options = parse_options({key: value for key, value in body.items() if key != "init_image"})
    assert locate(built_in().find(Kind.DETECTOR, options.detector)).exists()


def test_the_page_ends_with_a_picture(
    sd15: Any, photos: Path, on_loopback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two commands after ``serve``, spoken to a server of its catalogue."""
    asking = [line for line in re.findall(r"^\$ (.+)$", PAGE, re.M) if "answer.json" in line]
    entry = '[[model]]\nname = "{}"\nkind = "{}"\nbase = "sd15"\nsizes = ["64x64"]\npath = "{}"\n'
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(
        entry.format("realistic", "base", sd15.file)
        + entry.format("anime", "checkpoint", sd15.file)
    )
    shutil.copy(photos / "skimage_astronaut.png", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    with Detailer(catalogue, "cpu") as detailer, on_loopback(create_app(detailer)) as url:
        for line in asking:
            done = line.replace("http://127.0.0.1:8000", url)
            subprocess.run(["bash", "-c", done], check=True, timeout=120)
    with Image.open("served.jpg") as picture:
        assert picture.size == (512, 512)
