"""Run a batch; if it fails, its halves: one mechanism for a batch too large and a job too bad."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from afterdetail.errors import AfterdetailError, DeviceLost, InpaintFailed, OutOfMemory

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


def run_split(
    items: Sequence[T],
    run: Callable[[Sequence[T]], list[R]],
    on_out_of_memory: Callable[[Sequence[T]], None] = lambda _: None,
) -> list[R | AfterdetailError]:
    """``run(items)``, in halves of halves where the whole fails.

    ``run`` must change nothing, since it may see an item again. So an error in one item ends that
    item alone, and a batch that does not fit memory is run in parts that do.

    Args:
        on_out_of_memory: told each batch that did not fit.

    Returns:
        For each item, in order, its result or its error.

    Raises:
        DeviceLost: nothing will run any more in this process.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLost("the device failed and takes no more work; start again") from error
        if is_out_of_memory(error):
            on_out_of_memory(items)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        failure = describe(error)
    # Outside the handler: it would keep the failed batch's tensors alive.
    if len(items) == 1:
        return [failure]
    half = len(items) // 2
    return [
        *run_split(items[:half], run, on_out_of_memory),
        *run_split(items[half:], run, on_out_of_memory),
    ]


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. Not every allocator has an exception class of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("can't allocate memory", "error: out of memory"))
    )


def is_device_lost(error: Exception) -> bool:
    """Whether every later call of this process will fail too, as after an illegal address in a
    CUDA kernel. The asynchronous launch of the next kernel may be what reports it."""
    sticky = getattr(torch, "AcceleratorError", ())
    return not is_out_of_memory(error) and (
        isinstance(error, sticky)
        or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
    )


def describe(error: Exception) -> AfterdetailError:
    """An error of ours for one of the networks' own, which is logged."""
    if isinstance(error, AfterdetailError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory("not enough memory for this object, even alone")
    log.error("a batch failed", exc_info=error)
    return InpaintFailed("the model failed on this object; the log has the cause")
