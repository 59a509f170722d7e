"""The engine on an accelerator, with networks of the true SD 1.5 and SDXL sizes and random weights.

    python -m benchmarks.gpu [--faces 16] [--compile] [--peak-tflops 798]
    python -m benchmarks.gpu --rehearse        # on the CPU, with small networks

Speed does not depend on the weights' values, so none are fetched: this runs without a network, from
the source tree and the packages torch, diffusers and transformers. SDXL has no engine support yet;
of it only the UNet's step is timed.
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
from transformers import CLIPTextModel

from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.graphs import GraphBackend
from afterdetail.engine.job import Job
from afterdetail.models.diffusion import DiffusionModel
from benchmarks.faces import SerialLoop, face_jobs, heading, tiny

RESULTS = Path(__file__).with_name("results") / "gpu.md"
ROUNDS = 5
H100_TFLOPS = 798
"""What an H100 reaches in bf16 matrix products."""

SD15_UNET = {"cross_attention_dim": 768, "sample_size": 64}
"""The library's own defaults are SD 1.5's."""
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL = {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8}
SMALL_XL = {"block_out_channels": (32, 32, 32), "norm_num_groups": 8, "attention_head_dim": 4}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large: the accelerator with true sizes, or the rehearsal."""

    device: torch.device
    dtype: torch.dtype
    faces: int
    side: int
    compiled: bool
    peak: float
    small: bool


def sd15(setting: Setting) -> DiffusionModel:
    torch.manual_seed(0)
    text = tiny().text_encoder
    assert text is not None
    config = type(text.config)(**{**text.config.to_dict(), **TEXT})
    vae = {**VAE, "block_out_channels": (16, 16, 32, 32)} if setting.small else VAE
    groups = {"norm_num_groups": 8} if setting.small else {}
    networks = {
        "unet": UNet2DConditionModel(**{**SD15_UNET, **(SMALL if setting.small else {})}),
        "vae": AutoencoderKL(**{**vae, **groups}),
        "text_encoder": CLIPTextModel(config),
    }
    return replace(
        tiny(),
        name="sd15, random",
        device=setting.device,
        dtype=setting.dtype,
        **{name: ready(network, setting) for name, network in networks.items()},
    )


def ready(network: Any, setting: Setting) -> Any:
    network = network.to(setting.device, setting.dtype, memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def jobs_of(model: DiffusionModel, setting: Setting) -> list[Job]:
    """Faces at the true size: 20 steps at strength 0.4, so 8 are run."""
    job = face_jobs(1, model)[0]
    shape = (setting.side, setting.side)
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


def faces_table(setting: Setting) -> str:
    model = sd15(setting)
    jobs = jobs_of(model, setting)
    loop = SerialLoop(model)
    per_face = flop(lambda: loop.paint(jobs[0]))
    backends: list[Backend] = [EagerBackend(), GraphBackend()]
    if setting.compiled:
        backends.append(GraphBackend(compiled=True))
    few = jobs[:2]
    naive = seconds(lambda: [loop.paint(job) for job in few], setting) / len(few)
    lines = [
        "| side | ms a face | faces/s | against the loop | FLOP utilisation |",
        "|---|---:|---:|---:|---:|",
        _line("naive diffusers loop", naive, naive, per_face, setting),
    ]
    for backend in backends:
        label = backend.name + (", compiled" if backend is not backends[0] and
                                backend is backends[-1] and setting.compiled else "")  # fmt: skip
        taken = seconds(lambda: run_engine(backend, jobs), setting) / len(jobs)  # noqa: B023
        lines.append(_line(f"ours, {label}", taken, naive, per_face, setting))
    return "\n".join(lines)


def _line(name: str, taken: float, naive: float, per_face: int, setting: Setting) -> str:
    used = per_face / taken / (setting.peak * 1e12)
    return f"| {name} | {1e3 * taken:.1f} | {1 / taken:.2f} | {naive / taken:.2f}x | {used:.1%} |"


@torch.inference_mode()
def sdxl_step_table(setting: Setting) -> str:
    unet = ready(
        UNet2DConditionModel(**{**SDXL_UNET, **(SMALL_XL if setting.small else {})}), setting
    )
    lines = ["| rows | ms a row | FLOP utilisation |", "|---:|---:|---:|"]
    for rows in (2, 8, 16):
        step = sdxl_step(unet, rows, setting)
        work, taken = flop(step) / rows, seconds(step, setting) / rows
        used = work / taken / (setting.peak * 1e12)
        lines.append(f"| {rows} | {1e3 * taken:.1f} | {used:.1%} |")
    return "\n".join(lines)


def sdxl_step(unet: Any, rows: int, setting: Setting) -> Callable[[], object]:
    side = setting.side // 8 if setting.small else 128
    kind: dict[str, Any] = {"device": setting.device, "dtype": setting.dtype}
    latents = torch.randn(rows, 4, side, side, **kind).to(memory_format=torch.channels_last)
    added = {"text_embeds": torch.randn(rows, 1280, **kind),
             "time_ids": torch.ones(rows, 6, **kind)}  # fmt: skip
    embeddings = torch.randn(rows, 77, 2048, **kind)
    times = torch.full((rows,), 500.0, device=setting.device)
    return lambda: unet(
        latents, times, encoder_hidden_states=embeddings, added_cond_kwargs=added,
        return_dict=False,
    )  # fmt: skip


def page(setting: Setting) -> str:
    device = (
        torch.cuda.get_device_name() if setting.device.type == "cuda" else "CPU: a rehearsal only"
    )
    faces, step = faces_table(setting), sdxl_step_table(setting)
    return f"""{heading("The engine on an accelerator", ("torch", "diffusers"))}
Device: {device}; {setting.dtype}; peak taken as {setting.peak:g} TFLOP/s. Networks of the true
sizes with random weights{" (small ones in this rehearsal)" if setting.small else ""}; medians of
{ROUNDS}.

## SD 1.5 at {setting.side} pixels, 20 steps, strength 0.4, {setting.faces} faces in flight

{faces}

## SDXL at 1024 pixels: the UNet's step alone, eager

{step}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--faces", type=int, default=16)
    parser.add_argument("--peak-tflops", type=float, default=H100_TFLOPS)
    options = parser.parse_args()
    if options.rehearse:
        cpu = torch.device("cpu")
        print(page(Setting(cpu, torch.float32, 2, 64, False, options.peak_tflops, True)))
        return
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; try --rehearse")
    cuda = torch.device("cuda")
    setting = Setting(
        cuda, torch.float16, options.faces, 512, options.compile, options.peak_tflops, False
    )
    text = page(setting)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
