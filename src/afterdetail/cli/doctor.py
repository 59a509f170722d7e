"""``afterdetail doctor``: what this machine has, and whether afterdetail works on it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from afterdetail import __version__
from afterdetail.cli.options import AsJson, Device
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.errors import AfterdetailError, ModelUnavailable

if TYPE_CHECKING:
    import torch

    from afterdetail.models.catalogue import ModelSpec

UNWELL = 1
LIBRARIES = ("torch", "diffusers", "transformers", "ai-edge-litert", "numpy", "pillow")
EXTRAS: Mapping[str, str] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ui": "gradio",
    "ray": "ray",
}
"""What each extra is known by when it is there."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the self-test: how long it took, and what was wrong, if anything."""

    name: str
    seconds: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out. Memory is in bytes."""

    version: str
    python: str
    system: str
    libraries: Mapping[str, str]
    extras: Mapping[str, bool]
    device: str
    memory_free: int
    memory_total: int
    models_here: tuple[str, ...]
    models_missing: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def well(self) -> bool:
        return not any(check.problem for check in self.checks)


def doctor(
    device: Device = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Detect and repaint with what is built in.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has, and try detecting and repainting on it."""
    with quiet_libraries():
        findings = _examine(device, test=test)
    typer.echo(json.dumps(asdict(findings)) if as_json else _as_text(findings))
    if not findings.well:
        raise typer.Exit(UNWELL)


def _examine(device_name: str | None, *, test: bool) -> Findings:
    from afterdetail.models.catalogue import built_in
    from afterdetail.models.loader import pick_device

    device = pick_device(device_name)
    free, total = _memory(device)
    here = {spec.name: _is_here(spec) for spec in built_in().models}
    return Findings(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        extras={name: find_spec(module) is not None for name, module in EXTRAS.items()},
        device=_name_of(device),
        memory_free=free,
        memory_total=total,
        models_here=tuple(name for name, present in here.items() if present),
        models_missing=tuple(name for name, present in here.items() if not present),
        checks=_self_test(device_name) if test else (),
    )


def _is_here(spec: ModelSpec) -> bool:
    from afterdetail.models.store import locate

    try:
        locate(spec)
    except ModelUnavailable:
        return False
    return True


def _name_of(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device.type}: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device.type}, threads: {threads}" if device.type == "cpu" else device.type


def _memory(device: torch.device) -> tuple[int, int]:
    """Free, then all, of where models go: the graphics card's, else the machine's."""
    import psutil
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def _self_test(device: str | None) -> tuple[Check, ...]:
    """Load the embedded model, look for faces, repaint a piece, all on a picture of noise."""
    import numpy as np

    from afterdetail.pipeline import Detailer

    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[96:160, 96:160] = 255
    with Detailer("tiny", device=device) as detailer:

        def repaint() -> None:
            result = detailer.inpaint(noise, mask, seed=1, mask_padding=0)
            outside = np.asarray(result.image)[:64] == noise[:64]
            if result.num_objects_inpainted != 1 or not outside.all():
                raise AfterdetailError("the repainted picture is not what it should be")

        return (
            _checked("load the embedded model", detailer.load),
            _checked("look for faces", lambda: detailer.detect(noise)),
            _checked("repaint, 18 steps", repaint),
            _checked("repaint again, warm", repaint),
        )


def _checked(name: str, action: Callable[[], object]) -> Check:
    began = perf_counter()
    try:
        action()
    except Exception as error:  # whatever it is, the others are tried too
        return Check(name, perf_counter() - began, f"{type(error).__name__}: {error}")
    return Check(name, perf_counter() - began)


def _as_text(findings: Findings) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in findings.libraries.items())
    extras = ", ".join(
        f"{name} {'yes' if is_in else 'no'}" for name, is_in in findings.extras.items()
    )
    free, total = findings.memory_free / GIB, findings.memory_total / GIB
    lines = [
        f"afterdetail {findings.version}, Python {findings.python}, {findings.system}",
        f"libraries  {versions}",
        f"extras     {extras}",
        f"device     {findings.device}",
        f"memory     {free:.1f} GiB free of {total:.1f}",
        f"models     here: {', '.join(findings.models_here) or 'none'}",
        f"           not here: {', '.join(findings.models_missing) or 'none'}"
        + (" (afterdetail models pull NAME)" if findings.models_missing else ""),
    ]
    for check in findings.checks:
        state = f"FAILED: {check.problem}" if check.problem else "ok"
        lines.append(f"self-test  {check.name}: {state}, {check.seconds:.2f} s")
    return "\n".join(lines)
