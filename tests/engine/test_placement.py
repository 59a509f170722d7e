"""Networks that are on the device only while they are needed."""

from __future__ import annotations

import runpy
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterdetail import studio as studios
from afterdetail.engine.backend import EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.engine.placement import TEXT, UNET, VAE, Resident, Visiting
from afterdetail.engine.scheduler import Scheduler
from afterdetail.engine.service import EngineService
from afterdetail.lifetime import Lifetime
from afterdetail.models import loader
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import TILE, ModelPool, for_low_memory
from afterdetail.studio import LONG_TURN, LocalStudio, Order, make_studio
from afterdetail.types import RGB, Gray

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "models" / "conftest.py"))["MODELS"]
CPU = torch.device("cpu")
CUDA = torch.device("cuda")


class Device:
    """Stands in for an accelerator: knows which copies of weights are alive on it."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, weakref.ref[Any]]] = []

    def upload(self, tensor: torch.Tensor, _: torch.device) -> torch.Tensor:
        memory = np.array(tensor.numpy())  # it lives as long as any tensor made of it
        self.copies.append((tensor.data_ptr(), weakref.ref(memory)))
        return torch.from_numpy(memory)

    def holds(self, network: torch.nn.Module) -> bool:
        """Whether some of its weights are there; never only a part of them."""
        alive = {home for home, copy in self.copies if copy() is not None}
        homes = {parameter.data_ptr() for parameter in network.parameters()}
        assert not alive & homes or homes <= alive
        return bool(alive & homes)


class Log(Device):
    """Remembers which networks were there together, as ``model.network``, at any upload."""

    def __init__(self, *models: DiffusionModel) -> None:
        super().__init__()
        self.together: set[frozenset[str]] = set()
        self.owners = {
            parameter.data_ptr(): f"{model.name}.{name}"
            for model in models
            for name, network in model.networks.items()
            for parameter in network.parameters()
        }

    def upload(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        copy = super().upload(tensor, device)
        self.copies = [pair for pair in self.copies if pair[1]() is not None]
        there = (self.owners.get(home) for home, _ in self.copies)
        self.together.add(frozenset(name for name in there if name))
        return copy


def networks_there(device: Device, model: DiffusionModel) -> set[str]:
    return {name for name, network in model.networks.items() if device.holds(network)}


@pytest.fixture
def job(tiny: DiffusionModel, face: RGB, oval: Gray) -> Job:
    return Job(tiny, face, oval, prompt="a woman", steps=3, strength=1.0, seed=5)


def run(engine: Engine, *jobs: Job) -> list[RGB]:
    numbers = [engine.add(job) for job in jobs]
    results = {}
    while not engine.idle:
        results.update({done.number: done.outcome for done in engine.step()})
    pictures = [results[number] for number in numbers]
    assert all(isinstance(picture, np.ndarray) for picture in pictures), pictures
    return pictures  # type: ignore[return-value]


def test_nothing_moves_where_there_is_room(tiny: DiffusionModel) -> None:
    placement = Resident()
    assert placement.visiting(tiny, TEXT) is placement.settled(tiny) is tiny


def test_visitors_are_copies_and_gone_when_let_go(tiny: DiffusionModel) -> None:
    device = Device()
    placement = Visiting(device.upload)
    here = placement.visiting(tiny, VAE + TEXT)
    assert networks_there(device, tiny) == {"vae", "text_encoder"}
    assert here.unet is tiny.unet
    assert here.vae is not tiny.vae
    del here
    assert networks_there(device, tiny) == set()


def test_one_unet_is_there_at_a_time(tiny: DiffusionModel) -> None:
    device = Device()
    other = replace(tiny, unet=Visiting().visiting(tiny, UNET).unet)
    for parameter in other.unet.parameters():
        parameter.data = parameter.data.clone()
    placement = Visiting(device.upload)
    first = placement.settled(tiny)
    assert placement.settled(tiny) is first
    del first
    placement.settled(other)
    assert networks_there(device, tiny) == set()
    assert networks_there(device, other) == {"unet"}


def test_jobs_give_the_same_pixels_and_leave_only_their_unet_behind(job: Job) -> None:
    device = Device()
    before = {name: t.clone() for name, t in job.model.unet.state_dict().items()}
    engine = Engine(placement=Visiting(device.upload))
    jobs = [job, replace(job, seed=6, guidance_scale=1.0)]
    assert np.array_equal(run(engine, *jobs), run(Engine(), *jobs))
    assert networks_there(device, job.model) == {"unet"}
    assert all(torch.equal(before[name], t) for name, t in job.model.unet.state_dict().items())
    count = len(device.copies)
    run(engine, job)  # its prompt is known, its UNet is there: only the autoencoder comes
    assert len(device.copies) == count + 2 * len(list(job.model.vae.parameters()))


def test_two_bases_and_a_refiner_take_turns_with_one_unet_there(
    tiny: DiffusionModel, job: Job
) -> None:
    """SDXL brings two text encoders, its refiner one; no model is given more than a step a turn."""
    base, refiner = SMALL["sdxl"](), SMALL["refiner"]()
    refined = replace(job, model=base, refiner=refiner, steps=4)
    jobs = [job, refined, replace(refined, seed=7, strength=0.2, steps=10)]
    device = Log(tiny, base, refiner)
    engine = Engine(Scheduler(turn=0), placement=Visiting(device.upload))
    assert all(map(np.array_equal, run(engine, *jobs), run(Engine(Scheduler(turn=0)), *jobs)))
    guests = {"tiny.text_encoder"}, {"tiny.vae"}, {"small-xl.vae"}, {"small-refiner.text_encoder_2"}
    calls = [*guests, {"small-xl.text_encoder", "small-xl.text_encoder_2"}]
    unets = {f"{model.name}.unet" for model in (tiny, base, refiner)}
    for there in device.together:
        assert len(there & unets) <= 1
        assert any(there - unets <= call for call in calls), there
    assert set().union(*device.together) == unets.union(*calls)
    assert sum(len(networks_there(device, model)) for model in (tiny, base, refiner)) == 1


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Those of the studios made from now on."""
    made: list[Engine] = []

    def service(engine: Engine) -> EngineService:
        made.append(engine)
        return EngineService(engine)

    monkeypatch.setattr(studios, "EngineService", service)
    return made


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Stands in for the ``cuda`` of a pool: what would go there is copied to the CPU."""
    device = Device()
    monkeypatch.setattr(studios, "Visiting", partial(Visiting, device.upload))
    on_card = for_low_memory
    monkeypatch.setattr(loader, "for_low_memory", lambda model, _: on_card(model, CPU))
    return device


def test_a_studio_with_low_memory_keeps_one_unet_on_the_card(
    card: Device, engines: list[Engine], studio: LocalStudio, order: Order
) -> None:
    pool = ModelPool(CUDA, low_memory=True)
    assert pool.dtype == torch.float16
    pool.dtype = torch.float32  # the CPU is slow in half precision
    low = make_studio(memory="low", backend="graphs", pool=pool)
    try:
        (engine,) = engines
        assert isinstance(engine.placement, Visiting)
        assert isinstance(engine.backend, EagerBackend)
        assert engine.scheduler.turn == LONG_TURN
        orders = [order, replace(order, seed=4)]
        made, expected = (
            [ticket.result() for ticket in one.open([order.choice], Lifetime()).begin(orders)]
            for one in (low, studio)
        )
        assert all(
            np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(made, expected, strict=True)
        )
        model = pool.get(order.choice.model)
        assert model.vae.use_tiling
        assert networks_there(card, model) == {"unet"}
    finally:
        low.close()


def test_on_a_cpu_low_memory_moves_nothing(engines: list[Engine]) -> None:
    make_studio("cpu", memory="low").close()
    assert [type(engine.placement) for engine in engines] == [Resident]


def test_in_tiles_small_pictures_are_the_same_and_large_ones_nearly(
    tiny: DiffusionModel, face: RGB
) -> None:
    """Each tile has means and variances of its own, where the whole has one for all: hence a
    difference at all. Four tiles of 64 pixels overlap here, as those of 512 do in 1024."""
    vae = Visiting().visiting(tiny, VAE).vae
    low = for_low_memory(replace(tiny, vae=vae), CPU)
    assert (low.vae.tile_sample_min_size, low.vae.use_tiling) == (TILE, True)
    assert not tiny.vae.use_tiling
    picture = torch.tensor(np.kron(face, np.ones((3, 3, 1), np.uint8))).permute(2, 0, 1)[None]
    picture = torch.nn.functional.avg_pool2d(picture.float() / 127.5 - 1, 3, 1, 1)
    with torch.inference_mode():
        whole = tiny.vae.encode(picture).latent_dist.mean
        expected = tiny.vae.decode(whole).sample
        assert torch.equal(low.vae.encode(picture).latent_dist.mean, whole)
        low.vae.tile_sample_min_size = 64
        low.vae.tile_latent_min_size = 64 // low.latent_factor
        found = low.vae.decode(low.vae.encode(picture).latent_dist.mean).sample
    difference = (found - expected).abs() * 127.5
    assert 0 < difference.mean() < 2.5  # of 255; 0.04 and 1.1 with the two embedded models so far
