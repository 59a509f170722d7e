"""Converted networks on disk: what takes a tracer seconds is read back in a moment."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

FILE = "unet.xml"


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/afterdetail/openvino``, or the same below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "afterdetail" / "openvino"


def runtime() -> Any:
    """The package ``openvino``, kept from telling its makers of every conversion."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


@dataclass(frozen=True, slots=True)
class IRCache:
    """At most ``capacity`` converted networks, the oldest out first.

    A network is known by its weights, its configuration and the versions that convert it. A
    folder that cannot be read or written costs time, never a result.
    """

    folder: Path | None = None
    capacity: int = 4

    def get(self, network: Any, convert: Callable[[], Any]) -> Any:
        """The converted ``network``, from disk if it is there."""
        folder = (self.folder or default_folder()) / fingerprint(network)
        if (folder / FILE).is_file():
            try:
                return runtime().Core().read_model(folder / FILE)
            except RuntimeError:
                log.warning("a converted network in the cache is damaged; converting it again")
        graph = convert()
        try:
            self._put(folder, graph)
        except OSError as error:
            log.warning("a converted network could not be kept on disk: %s", error)
        return graph

    def _put(self, folder: Path, graph: Any) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            runtime().save_model(graph, scratch / FILE, compress_to_fp16=False)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)  # at once: another process reads all of it or nothing
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        kept = sorted(folder.parent.iterdir(), key=lambda item: item.stat().st_mtime)
        for old in kept[: -self.capacity]:
            shutil.rmtree(old, ignore_errors=True)


def fingerprint(network: Any) -> str:
    """A name for these weights, this configuration and these versions."""
    digest = hashlib.sha256()
    versions = [version(package) for package in ("openvino", "torch", "diffusers")]
    digest.update(json.dumps([versions, dict(network.config)], default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
