"""How many UNet rows fit into memory: measured where it can be, bounded where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import psutil
import torch

from afterdetail.engine.backend import EagerBackend
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import Size

log = logging.getLogger(__name__)

SHARE_OF_FREE = 0.8
"""What the rows may take of the memory that is free once the models are loaded; the rest is for
the autoencoder and for what the allocator cannot use."""
MOST_ROWS = 64
"""Of an accelerator: twice what fills an H100 with SD 1.5 at 512 pixels."""
LEAST_ROWS = 2
"""A guided job's. It is run even where it should not fit: memory may be free by then."""
TENSORS_OF_A_ROW = 48
"""On the CPU, where nothing counts the peak: activations alive at a time, each of the size of the
widest map. The autoencoder's share is in it."""
TRIALS = (1, 2, 4)
TOKENS = 77


def row_limit(model: DiffusionModel, size: Size, on_cpu: int) -> int:
    """The most rows of pictures of ``size`` to run in one forward, at least two.

    Args:
        on_cpu: where the model is on the CPU, no more than these, see ``Backend.rows_on_cpu``.
    """
    if model.device.type == "cuda":
        limit = _measured(model, size)
    else:
        limit = min(on_cpu, int(_available() * SHARE_OF_FREE // _estimate(model, size)))
    limit = max(LEAST_ROWS, limit)
    log.info("%s at %dx%d: at most %d rows", model.name, *size, limit)
    return limit


def _available() -> int:
    return int(psutil.virtual_memory().available)


def _estimate(model: DiffusionModel, size: Size) -> int:
    width, height = (pixels // model.latent_factor for pixels in size)
    channels = int(model.unet.config.block_out_channels[0])
    itemsize = torch.tensor([], dtype=model.dtype).element_size()
    return width * height * channels * itemsize * TENSORS_OF_A_ROW


def _measured(model: DiffusionModel, size: Size) -> int:
    """A dry run of a few row counts, continued in a straight line to what is free."""

    def peak(rows: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        dry_run(model, size, rows)
        return torch.cuda.max_memory_allocated(model.device) - before

    return extrapolate(measure(peak), int(torch.cuda.mem_get_info(model.device)[0]))


def measure(peak: Callable[[int], int]) -> dict[int, int]:
    """Peak bytes by row count, as far as they fit.

    The device counts what other threads load meanwhile, too: the smaller of two runs has less.
    """
    peaks: dict[int, int] = {}
    for rows in TRIALS:
        try:
            peaks[rows] = min(peak(rows), peak(rows))
        except torch.OutOfMemoryError:
            break
    return peaks


def extrapolate(peaks: Mapping[int, int], free: int) -> int:
    """The most rows whose peak is within the share of ``free`` bytes, on the line of the peaks."""
    if not peaks:
        return LEAST_ROWS
    if len(peaks) < len(TRIALS):
        return max(peaks)
    few, many = min(peaks), max(peaks)
    a_row = max(1.0, (peaks[many] - peaks[few]) / (many - few))
    fixed = max(0.0, peaks[few] - few * a_row)
    return min(MOST_ROWS, int((free * SHARE_OF_FREE - fixed) // a_row))


@torch.inference_mode()
def dry_run(model: DiffusionModel, size: Size, rows: int) -> None:
    """One forward of the UNet on zeros."""
    config = model.unet.config
    width, height = (pixels // model.latent_factor for pixels in size)
    device = model.device
    EagerBackend().predict(
        model,
        torch.zeros(rows, int(config.in_channels), height, width, device=device),
        torch.zeros(rows, device=device),
        torch.zeros(rows, TOKENS, int(config.cross_attention_dim), device=device),
        _added(model, rows),
    )


def _added(model: DiffusionModel, rows: int) -> torch.Tensor | None:
    """Of SDXL the rest of its conditioning: the text's vector and, unembedded, the numbers."""
    config = model.unet.config
    if config.addition_embed_type != "text_time":
        return None
    numbers = 5 if model.is_refiner else 6
    vector = int(config.projection_class_embeddings_input_dim)
    vector -= numbers * int(config.addition_time_embed_dim)
    return torch.zeros(rows, vector + numbers, device=model.device)
