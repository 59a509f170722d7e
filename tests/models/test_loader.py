"""The pool of loaded models."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from afterdetail.errors import InvalidInput, ModelUnavailable, WeightsError
from afterdetail.models import loader
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import ModelPool, pick_device, resident_bytes
from afterdetail.options import Base

CPU = torch.device("cpu")


def spec(name: str, file: Path) -> ModelSpec:
    return ModelSpec(name, Kind.CHECKPOINT, Source(path=str(file)), Base.SD15)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models read, in order."""
    names: list[str] = []
    read = loader.load_model

    def counted(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> DiffusionModel:
        names.append(spec.name)
        return read(spec, device, dtype)

    monkeypatch.setattr(loader, "load_model", counted)
    return names


def test_a_model_is_read_once(sd15: Any, loads: list[str]) -> None:
    pool = ModelPool(CPU)
    first = pool.get(spec("a", sd15.file))
    assert pool.get(spec("a", sd15.file)) is first
    assert loads == ["a"]


def test_the_least_recently_used_goes_first(sd15: Any, loads: list[str]) -> None:
    a, b, c = (spec(name, sd15.file) for name in "abc")
    pool = ModelPool(CPU, limit=2 * resident_bytes([sd15.model]))
    for wanted in (a, b, a, c, a, b):
        pool.get(wanted)
    assert loads == ["a", "b", "c", "b"]


def test_a_model_above_the_limit_is_kept_while_it_is_the_only_one(
    sd15: Any, loads: list[str]
) -> None:
    pool = ModelPool(CPU, limit=0)
    for name in "aabb":
        pool.get(spec(name, sd15.file))
    assert loads == ["a", "b"]


def test_many_at_once_wait_for_one_read(sd15: Any, loads: list[str]) -> None:
    pool = ModelPool(CPU)
    got: list[DiffusionModel] = []
    threads = [
        threading.Thread(target=lambda: got.append(pool.get(spec("a", sd15.file))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(model) for model in got}) == 1
    assert loads == ["a"]


def test_others_are_served_while_a_model_is_read(
    sd15: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ModelPool(CPU)
    ready = pool.get(spec("ready", sd15.file))
    reading, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> DiffusionModel:
        reading.set()
        assert go_on.wait(10)
        model: DiffusionModel = sd15.model
        return model

    monkeypatch.setattr(loader, "load_model", slow)
    thread = threading.Thread(target=lambda: pool.get(spec("slow", sd15.file)))
    thread.start()
    assert reading.wait(10)
    assert pool.get(spec("ready", sd15.file)) is ready
    go_on.set()
    thread.join()


def test_a_failed_read_can_be_tried_again(sd15: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    pool = ModelPool(CPU)
    with pytest.raises(ModelUnavailable):
        pool.get(spec("mine", file))
    file.write_bytes(sd15.file.read_bytes()[:100])
    with pytest.raises(WeightsError):
        pool.get(spec("mine", file))
    file.write_bytes(sd15.file.read_bytes())
    assert pool.get(spec("mine", file)).name == "mine"


@pytest.mark.parametrize(
    ("name", "said"), [("tpu", "unknown device"), ("cuda:9", "no cuda device")]
)
def test_an_unknown_device_is_refused(name: str, said: str) -> None:
    if torch.cuda.is_available() and name.startswith("cuda"):
        pytest.skip("there is one here")
    with pytest.raises(InvalidInput, match=said):
        pick_device(name)
