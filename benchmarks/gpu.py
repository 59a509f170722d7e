"""The engine on an accelerator, with networks of the true SD 1.5 and SDXL sizes and random weights.

    python -m benchmarks.gpu [--faces 16] [--compile] [--peak-tflops 798]
    python -m benchmarks.gpu --rehearse        # on the CPU, with small networks

Speed does not depend on the weights' values, so none are fetched: this runs without a network, from
the source tree and the packages torch, diffusers and transformers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.graphs import GraphBackend
from afterdetail.engine.job import Job
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.options import Base
from benchmarks.faces import SerialLoop, face_jobs, tiny
from benchmarks.heading import heading
from benchmarks.true_sizes import AUTOENCODER, CLIP_L, OPEN_CLIP, SD15_UNET, SDXL_UNET

RESULTS = Path(__file__).with_name("results") / "gpu.md"
ROUNDS = 5
H100_TFLOPS = 798
"""What an H100 reaches in bf16 matrix products."""

SAFE_VAE = AUTOENCODER | {"force_upcast": False}
"""As the fp16-safe autoencoder has it."""
SMALL_UNET = {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8}
SMALL_XL_UNET = {"block_out_channels": (32, 32, 32), "norm_num_groups": 8, "attention_head_dim": 4}
SMALL_VAE = {"block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8}
SMALL_TEXT = {"num_hidden_layers": 2}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large: the accelerator with true sizes, or the rehearsal."""

    device: torch.device
    dtype: torch.dtype
    faces: int
    compiled: bool
    peak: float
    small: bool

    def side(self, base: Base) -> int:
        """Pixels of what is repainted."""
        return 64 if self.small else 512 if base is Base.SD15 else 1024


def sd15(setting: Setting) -> DiffusionModel:
    return replace(
        tiny(),
        name="sd15, random",
        device=setting.device,
        dtype=setting.dtype,
        unet=_make(UNet2DConditionModel, SD15_UNET | {"sample_size": 64}, SMALL_UNET, setting),
        vae=_make(AutoencoderKL, SAFE_VAE, SMALL_VAE, setting),
        text_encoder=_text(CLIPTextModel, CLIP_L, setting),
    )


def sdxl(setting: Setting) -> DiffusionModel:
    return replace(
        sd15(setting),
        name="sdxl, random",
        base=Base.SDXL,
        unet=_make(UNet2DConditionModel, SDXL_UNET, SMALL_XL_UNET, setting),
        text_encoder_2=_text(CLIPTextModelWithProjection, OPEN_CLIP, setting),
        tokenizer_2=tiny().tokenizer,
    )


def _make(kind: Any, true: dict[str, Any], small: dict[str, Any], setting: Setting) -> Any:
    """A network with random weights, made where it runs: billions of them take minutes on a CPU."""
    torch.manual_seed(0)
    with setting.device:
        network = kind(**{**true, **(small if setting.small else {})})
    return _ready(network, setting)


def _text(kind: Any, true: dict[str, Any], setting: Setting) -> Any:
    encoder = tiny().text_encoder
    assert encoder is not None
    changed = {**true, **(SMALL_TEXT if setting.small else {})}
    config = type(encoder.config)(**{**encoder.config.to_dict(), **changed})
    with setting.device:
        network = kind(config)
    return _ready(network, setting)


def _ready(network: Any, setting: Setting) -> Any:
    network = network.to(setting.device, setting.dtype, memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def jobs_of(model: DiffusionModel, setting: Setting) -> list[Job]:
    """Faces at the true size: 20 steps at strength 0.4, so 8 are run."""
    job = face_jobs(1, model)[0]
    shape = (setting.side(model.base),) * 2
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    mask = np.full(shape, 255, np.uint8)
    job = replace(job, image=image, mask=mask, steps=4 if setting.small else 20, strength=0.4)
    return [replace(job, seed=index + 1) for index in range(setting.faces)]


def run_engine(backend: Backend, jobs: Sequence[Job]) -> None:
    engine = Engine(backend=backend)
    for job in jobs:
        engine.add(job)
    while not engine.idle:
        for done in engine.step():
            assert isinstance(done.outcome, np.ndarray), done.outcome


def seconds(work: Callable[[], object], setting: Setting, rounds: int = ROUNDS) -> float:
    work()  # compiles, records, warms up
    taken = []
    for _ in range(rounds):
        _wait(setting)
        start = time.perf_counter()
        work()
        _wait(setting)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _wait(setting: Setting) -> None:
    if setting.device.type == "cuda":
        torch.cuda.synchronize()


def flop(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def faces_table(model: DiffusionModel, setting: Setting) -> str:
    jobs = jobs_of(model, setting)
    loop = SerialLoop(model)
    per_face = flop(lambda: loop.paint(jobs[0]))
    backends: dict[str, Backend] = {"eager": EagerBackend(), "graphs": GraphBackend()}
    if setting.compiled:
        backends["graphs, compiled"] = GraphBackend(compiled=True)
    few = jobs[:2]
    naive = seconds(lambda: [loop.paint(job) for job in few], setting) / len(few)
    lines = [
        "| side | ms a face | faces/s | against the loop | FLOP utilisation |",
        "|---|---:|---:|---:|---:|",
        _line("naive diffusers loop", naive, naive, per_face, setting),
    ]
    for name, backend in backends.items():
        taken = seconds(lambda: run_engine(backend, jobs), setting) / len(jobs)  # noqa: B023
        lines.append(_line(f"ours, {name}", taken, naive, per_face, setting))
    return "\n".join(lines)


def _line(name: str, taken: float, naive: float, per_face: int, setting: Setting) -> str:
    used = per_face / taken / (setting.peak * 1e12)
    return f"| {name} | {1e3 * taken:.1f} | {1 / taken:.2f} | {naive / taken:.2f}x | {used:.1%} |"


def page(setting: Setting) -> str:
    device = (
        torch.cuda.get_device_name() if setting.device.type == "cuda" else "CPU: a rehearsal only"
    )
    tables = []
    for make in (sd15, sdxl):
        model = make(setting)
        side = setting.side(model.base)
        tables.append(
            f"## {model.base} at {side} pixels, 20 steps, strength 0.4, {setting.faces} faces in "
            f"flight\n\n{faces_table(model, setting)}\n"
        )
        del model  # the next needs its memory
    return f"""{heading("The engine on an accelerator", ("torch", "diffusers"))}
Device: {device}; {setting.dtype}; peak taken as {setting.peak:g} TFLOP/s. Networks of the true
sizes with random weights{" (small ones in this rehearsal)" if setting.small else ""}; medians of
{ROUNDS}.

{chr(10).join(tables)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--faces", type=int, default=16)
    parser.add_argument("--peak-tflops", type=float, default=H100_TFLOPS)
    options = parser.parse_args()
    if options.rehearse:
        cpu = torch.device("cpu")
        print(page(Setting(cpu, torch.float32, 2, False, options.peak_tflops, True)))
        return
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; try --rehearse")
    cuda = torch.device("cuda")
    setting = Setting(
        cuda, torch.float16, options.faces, options.compile, options.peak_tflops, False
    )
    text = page(setting)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
