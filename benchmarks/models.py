"""Loading checkpoints of true size, changing LoRAs, one step on the CPU; random weights."""

from __future__ import annotations

import math
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from afterdetail.models.catalogue import Kind, ModelSpec, Source, built_in
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import ModelPool, load_model, resident_bytes
from afterdetail.models.lora import with_loras
from afterdetail.models.single_file import load_single_file
from afterdetail.options import Base
from benchmarks.heading import heading
from benchmarks.serving import Server, photograph, request, serving
from benchmarks.true_sizes import AUTOENCODER, CLIP_L, OPEN_CLIP, SD15_UNET, SDXL_UNET

LAYOUT = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "models" / "original_layout.py"))
CPU = torch.device("cpu")
RUNS = 5
WARM = 3
"""Loads before those that are timed: until then the process asks the system for memory."""
RANK = 16
CHANGES = 1000
PICTURES: dict[str, dict[str, object]] = {
    "the first, one step without guidance": {"steps": 1, "cfg_scale": 1.0, "strength": 1.0},
    "20 steps at strength 0.4, guidance 7.5": {"steps": 20, "cfg_scale": 7.5, "strength": 0.4},
}


def random_sd15(file: Path) -> Path:
    """A checkpoint of SD 1.5's own sizes, as Civitai's files are laid out, with random weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_UNET)
        text = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        layout = LAYOUT["original_clip"](text, "cond_stage_model.transformer.")
    return _save(file, layout, unet)


def random_sdxl(file: Path) -> Path:
    """The same of SDXL's base model."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET)
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**OPEN_CLIP))
        layout = LAYOUT["original_clip"](first, "conditioner.embedders.0.transformer.")
        layout |= LAYOUT["original_open_clip"](second, "conditioner.embedders.1.model.")
    return _save(file, layout, unet)


def _save(file: Path, text: Mapping[str, torch.Tensor], unet: UNet2DConditionModel) -> Path:
    with torch.device("meta"):
        vae = AutoencoderKL(**AUTOENCODER)
    layout = {**LAYOUT["original_unet"](unet), **LAYOUT["original_vae"](vae), **text}
    torch.manual_seed(0)
    save_file({name: _random(name, like.shape) for name, like in layout.items()}, file)
    return file


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights that keep a signal's size: no layer overflows."""
    if len(shape) > 1:
        return (torch.randn(shape) / math.sqrt(math.prod(shape[1:]))).half()
    return (torch.zeros if name.endswith("bias") else torch.ones)(shape, dtype=torch.float16)


def random_lora(model: DiffusionModel, file: Path) -> Path:
    """Rank 16 on every attention and feed-forward layer of the UNet and every text layer."""
    tensors: dict[str, torch.Tensor] = {}
    for network in ("unet", "text_encoder"):
        for name, layer in model.networks[network].named_modules():
            if isinstance(layer, torch.nn.Linear) and "time_emb" not in name:
                down = torch.randn(RANK, layer.in_features) / RANK
                up = torch.randn(layer.out_features, RANK) / RANK
                tensors |= {
                    f"{network}.{name}.lora_A.weight": down.half(),
                    f"{network}.{name}.lora_B.weight": up.half(),
                }
    save_file(tensors, file)
    return file


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU: on a busy machine only these compare."""
    began, worked = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - worked


def load(file: Path) -> DiffusionModel:
    return load_single_file("a", Base(file.stem), file, CPU, torch.float16)


def read(file: Path, memory: memoryview) -> None:
    """Every byte once, into memory that was used before, round and round."""
    at = 0
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(memory[at:]):
            at = (at + count) % len(memory)


def peak_anonymous(work: Callable[[], object]) -> int:
    """Bytes of memory of no file, at most, above what there was."""
    before, most, done = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.003):
            most = max(most, _anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    kept = work()
    done.set()
    thread.join()
    del kept
    return most - before


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def measure_load(file: Path) -> None:
    """In a process of its own: memory that was used before would be used again unseen."""
    cache, memory = (memoryview(bytearray(1 << bits)) for bits in (24, 30))
    works: dict[str, Callable[[], object]] = {
        "read the file, into 16 MB": lambda: read(file, cache),
        "read the file, into memory larger than the processor's caches": lambda: read(file, memory),
        "read the file, into new memory": file.read_bytes,
        "load it, same precision": lambda: load(file),
    }
    for _ in range(WARM):
        load(file)
    taken = [{what: cost(work) for what, work in works.items()} for _ in range(RUNS)]
    for what in works:
        wall, cpu = (statistics.median(run[what][i] for run in taken) for i in range(2))
        print(f"| {what} (median of {RUNS}) | {wall:.2f} s, {cpu:.2f} s of CPU |")


def measure_memory(file: Path) -> None:
    peak = peak_anonymous(lambda: load(file))
    size = file.stat().st_size
    print(f"| memory while loading it, at most | {peak / 1e9:.2f} GB, {peak / size:.2f}x |")


def measure_lora(file: Path) -> None:
    spec = ModelSpec("base", Kind.BASE, Source(path=str(file)), Base.SD15)
    model = load_model(spec, CPU, torch.float32)
    line = random_lora(model, file.with_name("line.safetensors"))
    lora = ModelSpec("line", Kind.LORA, Source(path=str(line)), Base.SD15)
    costs = [cost(partial(with_loras, model, [LoraUse(lora, 0.1 * n)])) for n in range(1, 4)]
    wall, cpu = (statistics.median(pair[i] for pair in costs) for i in range(2))
    print(f"| a set of LoRAs never used before, float32 | {wall:.2f} s, {cpu:.2f} s of CPU |")
    pool = ModelPool(CPU)
    sets = [frozenset({LoraUse(lora, weight)}) for weight in (0.5, 1.0)]
    for used in sets:
        pool.get(spec, used)
    again = statistics.median(seconds(partial(pool.get, spec, u)) for u in sets * 5)
    print(f"| change to a set that is in memory | {again * 1e3:.1f} ms |")


def measure_changes(_: Path) -> None:
    """1,000 sets of LoRAs one after the other, on the small model that comes with the package."""
    base = built_in().find(Kind.BASE, "tiny")
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(base, CPU, torch.float32)
        line = random_lora(model, Path(folder) / "line.safetensors")
        lora = ModelSpec("line", Kind.LORA, Source(path=str(line)), Base.SD15)
        pool = ModelPool(CPU, limit=4 * resident_bytes([model]))
        taken: list[int] = []
        for number in range(1, CHANGES + 1):
            pool.get(base, frozenset({LoraUse(lora, number / CHANGES)}))
            taken.append(_anonymous())
    early, late = taken[CHANGES // 10], taken[-1]
    change = f"{(late - early) / 1e6:+.1f} MB, of {late / 1e6:.0f} MB"
    print(f"| memory from LoRA change {CHANGES // 10} to {CHANGES}, small model | {change} |")


def measure_step(file: Path) -> None:
    model = load_single_file("a", Base.SD15, file, CPU, torch.float32)
    latents, text = torch.randn(1, 4, 64, 64), torch.randn(1, 77, 768)
    with torch.inference_mode():
        step = min(seconds(lambda: model.unet(latents, 500, text)) for _ in range(3))
    print(f"| one row of one step at 512x512, {torch.get_num_threads()} thread(s) | {step:.1f} s |")


def measure_serve(file: Path) -> None:
    """From the file to its first pictures over HTTP, as docs/models.md goes."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue = str(Path(folder) / "models.toml")
        command = ("models", "add", str(file), "--models", catalogue)
        add = (sys.executable, "-m", "afterdetail", *command)
        added = seconds(lambda: subprocess.run(add, check=True, capture_output=True))
        print(f"| `afterdetail models add` of it | {added:.1f} s |")
        began = time.perf_counter()
        with serving({"BACKEND": "eager"}, models=catalogue) as server:
            ready = time.perf_counter() - began
            print(f"| `afterdetail serve` with it until ready, float32 | {ready:.1f} s |")
            for what, options in PICTURES.items():
                body = request(photograph(512), **options)
                taken = seconds(partial(_answered, server, body))
                print(f"| one face through `POST /adetailer`, {what} | {taken:.0f} s |")


def _answered(server: Server, body: bytes) -> None:
    status, answer = server.ask("POST", "/adetailer", body)
    if status != 200:
        raise RuntimeError(f"{status}: {answer[:200]!r}")


PARTS = {
    "load": measure_load,
    "memory": measure_memory,
    "lora": measure_lora,
    "changes": measure_changes,
    "step": measure_step,
    "serve": measure_serve,
}
OF_SDXL = ("load", "memory")


def report() -> str:
    with tempfile.TemporaryDirectory() as folder:
        sd15 = _tables(random_sd15(Path(folder) / "sd15.safetensors"), PARTS)
    with tempfile.TemporaryDirectory() as folder:
        sdxl = _tables(random_sdxl(Path(folder) / "sdxl.safetensors"), OF_SDXL)
    return (
        f"{heading('Models', ('torch', 'safetensors', 'transformers'))}\nSingle-file checkpoints "
        "of true size, random weights, float16, in the page cache, loaded on the CPU.\n\n"
        f"## SD 1.5\n\n{sd15}\n## SDXL\n\n{sdxl}"
    )


def _tables(file: Path, parts: Iterable[str]) -> str:
    size = f"| the file | {file.stat().st_size / 1e9:.2f} GB |\n"
    return "| what | |\n|---|---|\n" + size + "".join(_part(part, file) for part in parts)


def _part(part: str, file: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.models", part, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    PARTS[sys.argv[1]](Path(sys.argv[2]))
