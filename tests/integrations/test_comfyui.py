"""ComfyUI's nodes, loaded as ComfyUI loads them, against a server on loopback."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI

from afterdetail import Detailer
from afterdetail.config import Settings, parse_tokens
from afterdetail.options import LibraryOptions, Order, Sampler
from afterdetail.server.app import create_app
from afterdetail.types import RGB

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
Serve = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    name = "custom_nodes_afterdetail"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


@pytest.fixture(scope="module")
def detailer() -> Iterator[Detailer]:
    with Detailer("tiny", device="cpu") as running:
        yield running


@pytest.fixture(scope="module")
def server(detailer: Detailer, on_loopback: Serve) -> Iterator[str]:
    with on_loopback(create_app(detailer, Settings())) as url:
        yield url


@pytest.fixture
def image(photo: Callable[[str], RGB]) -> torch.Tensor:
    """One picture of ComfyUI's: float32 (1, H, W, 3)."""
    return torch.from_numpy(photo("skimage_astronaut.png").astype(np.float32) / 255)[None]


def inputs(node: Any) -> dict[str, Any]:
    """The values a new node has in the graph."""
    kinds = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES().get("optional", {})}
    return {
        name: kind[0][0] if isinstance(kind[0], list) else kind[1]["default"]
        for name, kind in kinds.items()
        if isinstance(kind[0], list) or len(kind) > 1
    }


def call(node: Any, **given: Any) -> Any:
    return getattr(node(), node.FUNCTION)(**{**inputs(node), **given})


def test_every_node_is_what_comfyui_expects(package: ModuleType) -> None:
    assert package.NODE_CLASS_MAPPINGS.keys() == package.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in package.NODE_CLASS_MAPPINGS.values():
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert callable(getattr(node, node.FUNCTION))
        assert node.CATEGORY


def test_the_choices_are_the_servers(package: ModuleType, detailer: Detailer) -> None:
    nodes = sys.modules[f"{package.__name__}.nodes"]
    assert set(nodes.DETECTORS) == {
        spec.name for spec in detailer.catalogue.models if spec.kind == "detector"
    }
    assert set(nodes.SAMPLERS) <= set(Sampler)
    assert tuple(Order) == nodes.ORDERS
    stage = inputs(package.NODE_CLASS_MAPPINGS["AfterDetailStage"])
    assert stage.keys() <= LibraryOptions.model_fields.keys()


def test_a_batch_is_detailed_picture_by_picture(
    package: ModuleType, server: str, detailer: Detailer, image: torch.Tensor
) -> None:
    batch = torch.cat([image, image.flip(2)])
    node = package.NODE_CLASS_MAPPINGS["AfterDetail"]
    detailed, report = call(node, image=batch, server=server, steps=2, seed=7, cfg_scale=3.0)
    assert detailed.shape == batch.shape
    assert detailed.dtype == torch.float32
    objects = [item for one in json.loads(report) for item in one["objects"]]
    assert [(item["outcome"], item["seed"]) for item in objects] == [
        ("inpainted", 7),
        ("inpainted", 8),
    ]
    pixels = (image[0].numpy() * 255).round().astype(np.uint8)
    same = detailer.detail(pixels, steps=2, seed=7, strength=0.4, cfg_scale=3.0)
    np.testing.assert_array_equal((detailed[0].numpy() * 255).round(), same.picture.rgb)


def test_stages_are_chained(package: ModuleType, server: str, image: torch.Tensor) -> None:
    stage = package.NODE_CLASS_MAPPINGS["AfterDetailStage"]
    (first,) = call(stage, steps=2)
    (both,) = call(stage, stages=first, steps=2, detector="eyes_mesh_mediapipe", prompt="eyes")
    assert [one["detector"] for one in both] == ["face_full_mediapipe", "eyes_mesh_mediapipe"]
    assert ["prompt" in one for one in both] == [False, True]
    node = package.NODE_CLASS_MAPPINGS["AfterDetail"]
    _, report = call(node, image=image, server=server, stages=both)
    labels = [(item["stage"], item["label"]) for item in json.loads(report)[0]["objects"]]
    assert labels == [(0, "face"), (1, "eyes")]


def test_detections_are_a_mask_and_a_preview(
    package: ModuleType, server: str, image: torch.Tensor
) -> None:
    node = package.NODE_CLASS_MAPPINGS["AfterDetailDetect"]
    mask, preview, report = call(node, image=image, server=server)
    (found,) = json.loads(report)[0]["objects"]
    x0, y0, x1, y1 = (round(side) for side in found["box"])
    assert mask.shape == image.shape[:3]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[0, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() == 1
    assert abs(float(mask.sum()) / ((x1 - x0) * (y1 - y0)) - 1) < 0.05
    assert preview.shape == image.shape
    assert not torch.equal(preview, image)


def test_nothing_found_leaves_the_picture(package: ModuleType, server: str) -> None:
    blank = torch.full((1, 64, 96, 3), 0.5)
    detailed, _ = call(package.NODE_CLASS_MAPPINGS["AfterDetail"], image=blank, server=server)
    assert torch.allclose(detailed, blank, atol=1 / 255)
    mask, _, _ = call(package.NODE_CLASS_MAPPINGS["AfterDetailDetect"], image=blank, server=server)
    assert not mask.any()


def test_the_servers_words_reach_the_user(
    package: ModuleType, server: str, image: torch.Tensor
) -> None:
    node = package.NODE_CLASS_MAPPINGS["AfterDetail"]
    for given, told in (
        ({"checkpoint": "nobody"}, "nobody"),
        ({"stages": ({"steps": 0},)}, "stages.0.steps"),
        ({"server": "ftp://here"}, "http"),
        ({"server": "http://127.0.0.1:9"}, "afterdetail serve"),
    ):
        with pytest.raises(RuntimeError, match=told):
            call(node, **{"image": image, "server": server, **given})


def test_the_token_and_the_address_come_from_the_environment(
    package: ModuleType,
    detailer: Detailer,
    on_loopback: Serve,
    image: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = package.NODE_CLASS_MAPPINGS["AfterDetailDetect"]
    app = create_app(detailer, Settings(tokens=parse_tokens("anna:12345678")))
    with on_loopback(app) as url:
        monkeypatch.setenv("AFTERDETAIL_URL", url)
        with pytest.raises(RuntimeError, match=r"(?i)token"):
            call(node, image=image)
        monkeypatch.setenv("AFTERDETAIL_TOKEN", "12345678")
        assert call(node, image=image)[0].any()


def test_the_bar_moves_and_the_stop_button_ends_the_work(
    package: ModuleType,
    server: str,
    detailer: Detailer,
    image: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved: list[int] = []

    class Stop(BaseException):
        pass

    def check() -> None:
        if moved:
            raise Stop

    class Bar:
        def __init__(self, total: int) -> None:
            assert total == 1000

        def update_absolute(self, value: int) -> None:
            moved.append(value)

    management, utils = ModuleType("comfy.model_management"), ModuleType("comfy.utils")
    management.throw_exception_if_processing_interrupted = check  # type: ignore[attr-defined]
    utils.ProgressBar = Bar  # type: ignore[attr-defined]
    for module in (ModuleType("comfy"), management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    node = package.NODE_CLASS_MAPPINGS["AfterDetail"]
    with pytest.raises(Stop):
        call(node, image=image, server=server, steps=200, strength=1.0)
    assert 0 < moved[0] < 1000
    end = time.monotonic() + 20
    while detailer.engine.stats.jobs and time.monotonic() < end:
        time.sleep(0.05)
    assert detailer.engine.stats.jobs == 0
