"""Reads the tensors out of a ``.pt`` file without running anything the file asks for.

``torch.save`` writes a zip archive: a pickle of the objects and one member for each storage. A
pickle is a program that may call any function it can name. Here it can name tensors, storages,
dtypes and plain containers; classes of ultralytics and ``torch.nn`` become inert stand-ins that
only keep the state they are given; any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from afterdetail.errors import WeightsError

STAND_IN_PACKAGES = ("ultralytics.", "torch.nn.")
CLASS_GETTERS = frozenset({"builtins.getattr", "dill._dill._load_type"})
"""Functions that published files call to get at a class; never the real ones."""
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class StandIn:
    """An inert object in place of one whose class is not loaded; calling it gives another."""

    path = ""
    """The dotted name of the class it stands for."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        self.state: dict[str, Any] = {}

    def __call__(self, *_args: object, **_kwargs: object) -> StandIn:
        return StandIn()

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


class _ClassGetter(StandIn):
    """In place of a function that would return a class: calling it gives an inert class."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Any:
        return _stand_in(cls.path)


class _Rebuild:
    """A function of ``torch._utils``, without attributes that a pickle could change."""

    __slots__ = ("_rebuild",)
    _rebuild: Callable[..., torch.Tensor]

    def __init__(self, rebuild: Callable[..., torch.Tensor]) -> None:
        object.__setattr__(self, "_rebuild", rebuild)

    def __call__(self, *args: Any) -> torch.Tensor:
        return self._rebuild(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"sets {name!r} of a function")


def _rebuild_tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> torch.Tensor:
    """A view of a storage, never larger than it: a stride of 0 would make terabytes of a byte."""
    tensor = storage.as_strided(size, stride, offset)
    if tensor.numel() > storage.numel():
        raise pickle.UnpicklingError("has a tensor larger than its storage")
    return tensor


def _rebuild_parameter(tensor: torch.Tensor, *_: object) -> torch.Tensor:
    return tensor


def _real_names() -> dict[str, Any]:
    """Everything that is what it says it is; made anew for each file."""
    tensor, parameter = _Rebuild(_rebuild_tensor), _Rebuild(_rebuild_parameter)
    containers = {f"builtins.{kind.__name__}": kind for kind in (set, frozenset, list, dict, tuple)}
    dtypes = {str(dtype): dtype for dtype in DTYPES.values()}
    return {
        **containers,
        **dtypes,
        "collections.OrderedDict": OrderedDict,
        "torch.Size": torch.Size,
        "torch.device": torch.device,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
    }


def _stand_in(path: str, base: type[StandIn] = StandIn) -> type[StandIn]:
    return type("StandIn", (base,), {"path": path})


class _Unpickler(pickle.Unpickler):
    """Finds only what is listed above; see :func:`read_pt`."""

    def __init__(self, pickled: bytes, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(pickled))
        self._archive = archive
        self._folder = folder
        self._real = _real_names()
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if module == "__builtin__":  # what protocol 2 calls builtins
            path = f"builtins.{name}"
        if path in self._real:
            return self._real[path]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if path in CLASS_GETTERS:
            return _stand_in(path, _ClassGetter)
        if path.startswith(STAND_IN_PACKAGES):
            return _stand_in(path)
        raise pickle.UnpicklingError(f"asks for {path[:120]!r}, which weights do not need")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage as a flat tensor: ``("storage", dtype, key, location, length)``."""
        _, dtype, key, _, length = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}/data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0)
        storage = self._storages[key]
        if storage.numel() != length:
            raise pickle.UnpicklingError(f"has {storage.numel()} numbers where it says {length}")
        return storage


def read_pt(path: Path) -> Any:
    """The objects of a ``.pt`` file, with stand-ins for all that is not tensor or container.

    Raises:
        WeightsError: not a whole file of ``torch.save``, or it asks for a name that is refused;
            nothing it named has run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            _check_members(archive)
            folder = member.removesuffix("/data.pkl")
            return _Unpickler(archive.read(member), archive, folder).load()
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} is refused: its pickle {error}") from error
    except (zipfile.BadZipFile, StopIteration) as error:
        raise WeightsError(f"{path} is truncated, or no .pt of PyTorch 1.6 or newer") from error
    except Exception as error:  # a hostile pickle can make any opcode fail in any way
        raise WeightsError(f"{path} is damaged: {type(error).__name__}") from error


def _check_members(archive: zipfile.ZipFile) -> None:
    """PyTorch stores its members as they are; a compressed one could unpack without bound."""
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise pickle.UnpicklingError("lies in a compressed archive")
