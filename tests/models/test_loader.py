"""The pool of loaded models."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.errors import InvalidInput, ModelUnavailable, WeightsError
from afterdetail.models import loader, store
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.entries import Prediction
from afterdetail.models.loader import (
    ModelPool,
    expected_bytes,
    load_model,
    pick_device,
    resident_bytes,
)
from afterdetail.models.single_file import SCHEDULE, ZERO_SNR
from afterdetail.models.stats import PoolStats
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


def test_room_is_made_before_a_model_is_read(
    sd15: Any, sdxl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    read = loader.load_model

    def watched(*given: Any) -> DiffusionModel:
        held.append(pool.resident_bytes)
        return read(*given)

    monkeypatch.setattr(loader, "load_model", watched)
    small, large = resident_bytes([sd15.model]), resident_bytes([sdxl.model])
    pool = ModelPool(CPU, limit=small + large)
    pool.get(spec("a", sd15.file))
    pool.get(replace(spec("b", sdxl.file), base=Base.SDXL))
    pool.get(spec("c", sd15.file))  # which a leaves room for
    pool.get(replace(spec("d", sdxl.file), base=Base.SDXL))
    assert held == [0, small, large, small]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_a_model_will_take_is_known_before(saved: Any, dtype: torch.dtype) -> None:
    kind = Kind.REFINER if saved.model.is_refiner else Kind.CHECKPOINT
    entry = replace(spec("a", saved.file), base=saved.model.base, kind=kind)
    expected = expected_bytes(entry, dtype)
    assert expected == pytest.approx(resident_bytes([load_model(entry, CPU, dtype)]), rel=0.01)


def test_what_a_folder_holds_beside_its_networks_is_not_counted(tmp_path: Path) -> None:
    for part, values in (("unet", 10), ("text_encoder_2", 5), ("safety_checker", 1000)):
        (tmp_path / part).mkdir()
        file = tmp_path / part / "model.safetensors"
        save_file({"weight": torch.zeros(values)}, file)
    assert expected_bytes(spec("mine", tmp_path), torch.float16) == 2 * 15


def test_the_pool_answers_while_a_models_headers_are_read(
    sd15: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ModelPool(CPU)
    seen: list[PoolStats] = []

    def slow_disk(*given: Any) -> int:
        asking = threading.Thread(target=lambda: seen.append(pool.stats), daemon=True)
        asking.start()
        asking.join(10)
        return expected_bytes(*given)

    monkeypatch.setattr(loader, "expected_bytes", slow_disk)
    pool.get(spec("a", sd15.file))
    assert [stats.models for stats in seen] == [0]


def test_where_memory_is_low_weights_wait_in_host_memory(sd15: Any) -> None:
    pool = ModelPool(torch.device("meta"), low_memory=True)  # no memory at all
    model = pool.get(spec("a", sd15.file))
    assert model.device == torch.device("meta")
    assert {t.device for net in model.networks.values() for t in net.parameters()} == {CPU}
    assert model.vae.use_tiling


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


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose checksums were computed, in order."""
    names: list[str] = []
    computed = store.file_sha256

    def counted(path: Path) -> str:
        names.append(path.name)
        return computed(path)

    monkeypatch.setattr(store, "file_sha256", counted)
    return names


def test_a_checkpoint_with_a_wrong_checksum_is_refused(sd15: Any) -> None:
    wrong = replace(spec("mine", sd15.file), sha256="0" * 64)
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"is not the mine of the catalogue: sha256") as told:
            ModelPool(CPU).get(wrong)
        assert str(sd15.file) not in told.value.public


def test_an_autoencoder_with_a_wrong_checksum_is_refused(sd15: Any) -> None:
    other = ModelSpec("v", Kind.VAE, Source(path=str(sd15.file)), Base.SD15, sha256="0" * 64)
    with pytest.raises(WeightsError, match="is not the v of the catalogue"):
        ModelPool(CPU).get(replace(spec("mine", sd15.file), vae=other))


def test_a_checksum_is_computed_once_for_each_state_of_a_file(
    sd15: Any, tmp_path: Path, hashed: list[str]
) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(sd15.file.read_bytes())
    entry = replace(spec("mine", file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    for _ in range(2):
        load_model(entry, CPU, torch.float32)
    assert hashed == ["mine.safetensors"]
    with file.open("r+b") as stream:  # one bit of the last weight: nothing but the sum tells
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    with pytest.raises(WeightsError, match="is not the mine of the catalogue"):
        load_model(entry, CPU, torch.float32)


def test_without_a_checksum_nothing_is_read_twice(sd15: Any, hashed: list[str]) -> None:
    load_model(spec("mine", sd15.file), CPU, torch.float32)
    assert hashed == []


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


@pytest.fixture
def lora(sd15: Any, tmp_path: Path) -> ModelSpec:
    """It changes one layer of the UNet."""
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    rows, columns = sd15.model.unet.get_submodule(layer).weight.shape
    file = tmp_path / "line.safetensors"
    factors = {"A": torch.ones(2, columns), "B": torch.ones(rows, 2)}
    save_file({f"unet.{layer}.lora_{k}.weight": v for k, v in factors.items()}, file)
    return ModelSpec("line", Kind.LORA, Source(path=str(file)), Base.SD15)


def test_a_loras_checksum_is_computed_once_for_all_its_weights(
    sd15: Any, lora: ModelSpec, hashed: list[str]
) -> None:
    file = Path(lora.source.path or "")
    entry = replace(lora, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    pool = ModelPool(CPU)
    for weight in (0.5, 1.0):
        pool.get(spec("mine", sd15.file), frozenset({LoraUse(entry, weight)}))
    assert hashed == ["line.safetensors"]


def test_the_same_set_is_the_same_model(sd15: Any, lora: ModelSpec) -> None:
    pool, a = ModelPool(CPU), spec("a", sd15.file)
    once = pool.get(a, frozenset({LoraUse(lora, 0.5)}))
    assert pool.get(a, frozenset({LoraUse(lora, 0.5)})) is once
    assert pool.get(a, frozenset({LoraUse(lora, 0.6)})) is not once
    assert pool.get(a) is not once
    assert pool.get(a).vae is once.vae


@pytest.mark.parametrize(("weights", "forwards"), [((0.5, 0.5), 2), ((0.5, 0.6), 4)])
def test_jobs_of_the_same_set_share_forwards(
    sd15: Any, lora: ModelSpec, weights: tuple[float, float], forwards: int
) -> None:
    pool, a = ModelPool(CPU), spec("a", sd15.file)
    engine = Engine()
    for weight in weights:
        model = pool.get(a, frozenset({LoraUse(lora, weight)}))
        picture, mask = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 255, np.uint8)
        engine.add(Job(model, picture, mask, steps=2, strength=1.0))
    while not engine.idle:
        engine.step()
    assert engine.forwards == forwards


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, {}),
        ({"prediction": Prediction.EPSILON}, {"prediction_type": "epsilon"}),
        ({"prediction": Prediction.VELOCITY}, {"prediction_type": "v_prediction"}),
        ({"zero_snr": True}, ZERO_SNR),
    ],
)
def test_an_entry_may_know_the_schedule_better(
    sd15: Any, entry: dict[str, Any], told: Mapping[str, Any]
) -> None:
    model = load_model(replace(spec("a", sd15.file), **entry), CPU, torch.float32)
    assert model.scheduler_config == {**SCHEDULE, **told}


def test_memory_is_flat_over_many_changes(sd15: Any, lora: ModelSpec) -> None:
    """Only as many sets as fit are kept, beside the plain model that all share."""
    a = spec("a", sd15.file)
    one_layer = 32 * 32 * 4
    limit = resident_bytes([sd15.model]) + 3 * one_layer
    pool = ModelPool(CPU, limit)
    plain = pool.get(a)
    alive: weakref.WeakSet[DiffusionModel] = weakref.WeakSet()
    for number in range(1, 31):
        alive.add(pool.get(a, frozenset({LoraUse(lora, number / 100)})))
    gc.collect()
    assert len(alive) == 3
    assert pool.resident_bytes == limit
    assert pool.get(a) is plain


def test_a_plain_model_goes_after_those_that_share_with_it(
    sd15: Any, lora: ModelSpec, loads: list[str]
) -> None:
    a, b = spec("a", sd15.file), spec("b", sd15.file)
    used = frozenset({LoraUse(lora, 1.0)})
    pool = ModelPool(CPU, limit=2 * resident_bytes([sd15.model]))
    for wanted in (a, b, a):
        pool.get(wanted, used)
    pool.get(a)
    assert loads == ["a", "b", "a"]
    assert pool.resident_bytes <= pool.limit
