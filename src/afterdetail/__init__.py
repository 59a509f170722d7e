"""afterdetail: finds the faces and hands of a picture, repaints them, puts them back.

from afterdetail import Detailer

with Detailer(models="tiny") as detailer:
    result = detailer.detail("group.png", prompt="a smiling woman", seed=1)
result.image.save("detailed.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afterdetail.errors import AfterdetailError
    from afterdetail.options import DetailOptions, LibraryOptions
    from afterdetail.pipeline import Detailer
    from afterdetail.results import DetailedObject, DetailResult, DryRun, Outcome
    from afterdetail.stages import Stage
    from afterdetail.types import Box, Detection

__version__ = "0.1.0"

__all__ = [
    "AfterdetailError",
    "Box",
    "DetailOptions",
    "DetailResult",
    "DetailedObject",
    "Detailer",
    "Detection",
    "DryRun",
    "LibraryOptions",
    "Outcome",
    "Stage",
]

_HOME = {
    "AfterdetailError": "errors",
    "Box": "types",
    "DetailOptions": "options",
    "DetailResult": "results",
    "DetailedObject": "results",
    "Detailer": "pipeline",
    "Detection": "types",
    "DryRun": "results",
    "LibraryOptions": "options",
    "Outcome": "results",
    "Stage": "stages",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch takes seconds, `import` should not."""
    if name not in _HOME:
        raise AttributeError(f"module 'afterdetail' has no attribute {name!r}")
    return getattr(import_module(f"afterdetail.{_HOME[name]}"), name)
