"""Models of the server's owner, good ones and others, through HTTP: rows 18, 19, 35 and 37."""

from __future__ import annotations

import base64
import io
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file

from afterdetail.config import Settings
from afterdetail.server.app import create_app
from afterdetail.studio import LocalStudio

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

Body = dict[str, object]

BASE = '[[model]]\nname = "tiny"\nkind = "base"\nbase = "sd15"\npackage = "models/tiny"\n'
ENTRY = '[[model]]\nname = "{}"\nkind = "{}"\nbase = "sd15"\npath = "{}"\n'
WRONG_SUM = f'sha256 = "{"0" * 64}"\n'
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "models" / "conftest.py"))
SIZES = 'sizes = ["64x64"]\n'


def write_loras(folder: Path) -> None:
    """Of the tiny UNet's attention: one that fits, one whose rows do not, one cut short."""
    from afterdetail.models.catalogue import load_catalogue
    from afterdetail.models.loader import load_model

    spec = load_catalogue("tiny").find(None, "tiny")
    model = load_model(spec, torch.device("cpu"), torch.float32)
    fits, wrong = {}, {}
    draw = torch.Generator().manual_seed(1)
    for name, layer in model.unet.named_modules():
        if name.endswith("to_q"):
            rows, columns = layer.weight.shape
            fits[f"unet.{name}.lora_A.weight"] = torch.randn(2, columns, generator=draw)
            fits[f"unet.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=draw)
            wrong[f"unet.{name}.lora_A.weight"] = torch.ones(2, columns)
            wrong[f"unet.{name}.lora_B.weight"] = torch.ones(rows + 8, 2)
    assert fits
    save_file(fits, folder / "line.safetensors")
    save_file(wrong, folder / "wrong.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "line.safetensors").read_bytes()[:3000])


def write_checkpoints(folder: Path) -> None:
    """A small one that is right, one of another architecture, and a refiner."""
    good = SMALL["original"](SMALL["sd15_model"]())
    save_file(good, folder / "good.safetensors")
    of_sd2 = {
        name.replace("cond_stage_model.transformer.", "cond_stage_model.model."): tensor
        for name, tensor in good.items()
    }
    save_file(of_sd2, folder / "of_sd2.safetensors")
    save_file(SMALL["original"](SMALL["refiner_model"]()), folder / "refiner.safetensors")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detailer]:
    from afterdetail.pipeline import Detailer

    folder = tmp_path_factory.mktemp("served")
    write_loras(folder)
    write_checkpoints(folder)
    (folder / "pickle.safetensors").write_bytes(b"\x80\x02}q\x00.")  # .ckpt is refused by its name
    entries = [BASE, SIZES]
    entries += [
        ENTRY.format(name, "lora", f"{name}.safetensors") for name in ("line", "wrong", "cut")
    ]
    entries += [ENTRY.format("pickle", "checkpoint", "pickle.safetensors"), SIZES]
    entries += [ENTRY.format("torn", "checkpoint", "cut.safetensors"), SIZES]
    entries += [ENTRY.format("gone", "checkpoint", "nosuch.safetensors"), SIZES]
    for name, file in (
        ("good", "good"), ("swapped", "good"), ("unknown", "of_sd2"), ("refining", "refiner")
    ):  # fmt: skip
        entries += [ENTRY.format(name, "checkpoint", f"{file}.safetensors"), SIZES]
        entries += [WRONG_SUM] if name == "swapped" else []
    entries += [ENTRY.format("swapped-line", "lora", "line.safetensors"), WRONG_SUM]
    entries += [ENTRY.format("of-xl", "lora", "line.safetensors").replace("sd15", "sdxl")]
    (folder / "models.toml").write_text("".join(entries))
    with Detailer(folder / "models.toml", "cpu") as detailer:
        yield detailer


@pytest.fixture(scope="module")
def client(served: Detailer) -> TestClient:
    return TestClient(create_app(served, Settings(resolutions="any")))


@pytest.fixture(scope="module")
def face(astronaut: bytes, body: Body) -> Body:
    """A small picture, to be quick."""
    out = io.BytesIO()
    Image.open(io.BytesIO(astronaut)).convert("RGB").crop((150, 20, 310, 180)).save(out, "PNG")
    picture = base64.b64encode(out.getvalue()).decode()
    return body | {"init_image": picture, "steps": 1, "cfg_scale": 1}


def pixels(client: TestClient, body: Body) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    response = client.post("/adetailer", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["num_objects_inpainted"] == 1
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(response.json()["image_b64"]))))


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"loras": {"wrong": 1}}, 422, "adapter_incompatible"),
        ({"loras": {"cut": 1}}, 422, "adapter_incompatible"),
        ({"loras": {"swapped-line": 1}}, 422, "adapter_incompatible"),
        ({"loras": {"of-xl": 1}, "inpainting_base_model": "sd15"}, 422, "adapter_incompatible"),
        ({"checkpoint": "swapped"}, 503, "weights_error"),
        ({"checkpoint": "unknown"}, 503, "weights_error"),
        ({"checkpoint": "refining"}, 503, "weights_error"),
        ({"checkpoint": "pickle"}, 503, "weights_error"),
        ({"checkpoint": "torn"}, 503, "weights_error"),
        ({"checkpoint": "gone"}, 422, "model_unavailable"),
        ({"inpainting_base_model": "sdxl"}, 422, "model_unavailable"),
    ],
    ids=[
        "19 of another shape",
        "19 cut short",
        "19 a wrong checksum",
        "19 of another base",
        "37 a wrong checksum",
        "of an unknown architecture",
        "of another kind",
        "18 a pickle",
        "37 cut short",
        "37 missing",
        "17 not served",
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(
    client: TestClient, face: Body, fields: Body, status: int, code: str
) -> None:
    before = pixels(client, face)
    response = client.post("/adetailer", json=face | fields)
    told = response.json()
    assert response.status_code == status, told
    assert (told["detail"][0]["type"] if status == 422 else told["code"]) == code
    assert ".safetensors" not in response.text
    assert "served0" not in response.text
    assert np.array_equal(pixels(client, face), before)


def test_row_35_many_sets_of_loras_take_the_memory_of_a_few(
    client: TestClient, served: Detailer, face: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit the pool's limit are kept; the plain model is the same after them."""
    studio = served.engine
    assert isinstance(studio, LocalStudio)
    plain = pixels(client, face)
    before = served.model_stats
    pictures = [pixels(client, face | {"loras": {"line": 1}})]
    one_set = served.model_stats.resident_bytes - before.resident_bytes
    monkeypatch.setattr(studio.pool, "limit", before.resident_bytes + 2 * one_set)
    for number in range(2, 9):
        pictures.append(pixels(client, face | {"loras": {"line": number}}))
        assert served.model_stats.models <= 3
    assert served.model_stats.loads == before.loads + 8
    assert len({picture.tobytes() for picture in pictures}) > 4
    assert np.array_equal(pixels(client, face), plain)


def test_the_file_with_the_wrong_checksum_is_served_by_an_entry_without(
    client: TestClient, face: Body
) -> None:
    """So it is refused for nothing else above."""
    plain = pixels(client, face)
    assert not np.array_equal(pixels(client, face | {"checkpoint": "good"}), plain)
    assert np.array_equal(pixels(client, face), plain)
