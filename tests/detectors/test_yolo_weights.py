"""Weights files of every kind, whole and broken, kind and hostile."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import runpy
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from afterdetail.detectors.yolo import open_network
from afterdetail.detectors.yolo_network import fold_batch_norms
from afterdetail.detectors.yolo_pickle import StandIn, read_pt
from afterdetail.detectors.yolo_weights import checked_names, parse_names, read_weights
from afterdetail.errors import WeightsError

DATA = Path(__file__).parents[1] / "data" / "yolo"
random_state = runpy.run_path(str(DATA / "random_weights.py"))["random_state"]


def tiny_state(classes: int = 2, *, masks: bool = False) -> dict[str, Tensor]:
    state = random_state("tiny", classes, masks=masks)
    return {name: torch.from_numpy(array) for name, array in state.items()}


def foreign_class(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """A module class that pickles under another package's name."""
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        parent = ".".join(parts[:i])
        if parent not in sys.modules:
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    if hasattr(sys.modules[module], name):
        known: type[nn.Module] = getattr(sys.modules[module], name)
        return known
    made = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
    monkeypatch.setattr(sys.modules[module], name, made, raising=False)
    return made


def model_like_ultralytics(
    state: dict[str, Tensor],
    names: dict[int, str],
    monkeypatch: pytest.MonkeyPatch,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Module:
    """Modules nested as the names of the state dict say, of classes named as ultralytics' are."""
    conv_class = foreign_class("ultralytics.nn.modules.conv", "Conv", monkeypatch)
    block_class = foreign_class("ultralytics.nn.modules.block", "C2f", monkeypatch)
    root = foreign_class("ultralytics.nn.tasks", "DetectionModel", monkeypatch)()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for depth, part in enumerate(path):
            if part not in module._modules:
                is_conv = path[depth + 1 :] in (["conv"], ["bn"])
                child = conv_class() if is_conv else block_class()
                if is_conv:
                    child.add_module("act", activation())
                module.add_module(part, child)
            module = module._modules[part]  # type: ignore[assignment]
        if "running" in last:
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    root.names = names  # type: ignore[assignment]
    root.stride = torch.tensor([8.0, 16.0, 32.0])
    root.save = {4, 6, 9}  # type: ignore[assignment]
    return root


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = model_like_ultralytics(tiny_state(), {0: "face", 1: "hand"}, monkeypatch)
    path = tmp_path / "tiny.pt"
    torch.save({"epoch": -1, "model": model, "ema": None, "train_args": {"imgsz": 640}}, path)
    return path


def test_a_checkpoint_gives_its_tensors_and_names(checkpoint: Path) -> None:
    weights = read_weights(checkpoint)
    state = tiny_state()
    assert weights.class_names == ("face", "hand")
    assert weights.tensors.keys() == state.keys()
    assert all(torch.equal(weights.tensors[name], state[name]) for name in state)


def test_the_averaged_model_goes_before_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {
        key: model_like_ultralytics(tiny_state(), {0: key, 1: "x"}, monkeypatch)
        for key in ("model", "ema")
    }
    torch.save(models, tmp_path / "both.pt")
    assert read_weights(tmp_path / "both.pt").class_names == ("ema", "x")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_format_gives_the_same_network(prefix: str, checkpoint: Path, tmp_path: Path) -> None:
    safe = tmp_path / "tiny.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in tiny_state().items()}, safe)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    from_pt, from_safe = (open_network(path)(picture, 0.0) for path in (checkpoint, safe))
    assert len(from_pt.boxes) == 8 * 12 + 4 * 6 + 2 * 3
    np.testing.assert_array_equal(from_pt.boxes, from_safe.boxes)
    np.testing.assert_array_equal(from_pt.scores, from_safe.scores)


def test_folded_weights_are_left_as_they_are() -> None:
    folded = fold_batch_norms(tiny_state())
    again = fold_batch_norms(folded)
    assert all(torch.equal(folded[name], again[name]) for name in folded)


@pytest.mark.parametrize("classes", [1, 2, 17])
@pytest.mark.parametrize("masks", [False, True])
def test_classes_and_head_are_read_off_the_weights(
    classes: int, masks: bool, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file(tiny_state(classes, masks=masks), path)
    network = open_network(path)
    assert network.class_names == tuple(str(number) for number in range(classes))
    assert network.segments == masks


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        (3, None),
        ("", None),
        ("__import__('os')", None),
        ([], ()),
        (["a", "b"], ("a", "b")),
        ({1: "b", 0: "a"}, ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ('{"0": "a", "1": "b"}', ("a", "b")),
        ("{0: 'a', 1: 'b'}", ("a", "b")),
        ({10: "k", 9: "j"}, ("j", "k")),
        ({"a": "face"}, None),
        ('{"face": 0}', None),
        ({None: "face"}, None),
        ({float("inf"): "face"}, None),
    ],
)
def test_class_names_come_in_many_forms(value: Any, names: tuple[str, ...] | None) -> None:
    assert parse_names(value) == names


# Weights that are not what they should be.


def save(state: dict[str, Tensor], path: Path, names: list[str] | None = None) -> None:
    save_file(state, path, {"names": json.dumps(names)} if names else None)


def without(part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tiny_state().items() if part not in name}


def with_other(name: str, tensor: Tensor) -> dict[str, Tensor]:
    return {**tiny_state(), name: tensor}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not a YOLOv8 .* no model.0.conv.weight"),
        ({"weight": torch.zeros(3)}, "not a YOLOv8 .* no model.0.conv.weight"),
        (without("model.22"), "not a YOLOv8 .* no model.22"),
        (without("model.9.cv1.bn.bias"), "layers do not fit"),
        (with_other("model.23.conv.weight", torch.zeros(1)), "unexpected model.23.conv.weight"),
        (with_other("model.9.cv1.conv.weight", torch.zeros(32, 7, 1, 1)), "layers do not fit"),
        (with_other("model.9.cv1.conv.weight", torch.zeros(2)), "layers do not fit"),
        (with_other("model.22.cv3.1.2.weight", torch.zeros(5, 16, 1, 1)), "layers do not fit"),
    ],
)
def test_other_networks_are_refused(state: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save(state, path)
    with pytest.raises(WeightsError, match=message) as error:
        open_network(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert str(path) not in error.value.public


def test_other_activations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_like_ultralytics(tiny_state(), {0: "a", 1: "b"}, monkeypatch, nn.ReLU)
    torch.save({"model": model}, tmp_path / "relu.pt")
    with pytest.raises(WeightsError, match=r"relu.pt is not a YOLOv8 network: .*ReLU, not SiLU"):
        open_network(tmp_path / "relu.pt")


@pytest.mark.parametrize("names", [["face"], ["face", "hand", "foot"]])
def test_a_wrong_class_count_is_refused(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save(tiny_state(), path, names)
    message = rf"names {len(names)} classes, but its network has 2"
    with pytest.raises(WeightsError, match=message):
        open_network(path)
    with pytest.raises(WeightsError, match=message):
        checked_names(path, tuple(names), 2)


@pytest.mark.parametrize("content", [[], {}, {"model": {"a": 1}}, {"model": None, "ema": None}])
def test_files_of_torch_save_without_a_model_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "else.pt")
    with pytest.raises(WeightsError, match=r"else.pt is no model that ultralytics saved"):
        open_network(tmp_path / "else.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"PK\x03\x04 rubbish", b"<html>404</html>"])
def test_rubbish_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"rubbish{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"rubbish\.\w+ is truncated,? or no"):
        open_network(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_files_are_refused(suffix: str, share: float, checkpoint: Path) -> None:
    path = checkpoint.with_suffix(suffix)
    save(tiny_state(), checkpoint.with_suffix(".safetensors"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"tiny\.\w+ is truncated"):
        open_network(path)


def test_a_changed_byte_in_the_weights_is_found(checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(WeightsError, match=r"tiny\.pt is"):
        open_network(checkpoint)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model.ckpt is no detector's weights; they end in"):
        open_network(tmp_path / "model.ckpt")


# Hostile pickles: each would write the file SIGN if anything it names ran.


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def archive(path: Path, pickled: bytes, **members: bytes) -> Path:
    """A file laid out as ``torch.save`` does, around any pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, data in members.items():
            file.writestr(f"archive/data/{name.removeprefix('_')}", data)
    return path


def command(sign: Path) -> str:
    return f"touch {sign}"


def raw_call(module: str, name: str, argument: str) -> bytes:
    """Protocol 0: import ``module.name`` and call it."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def hostile_pickles(sign: Path) -> Iterator[tuple[str, bytes]]:
    shell = command(sign)
    yield "os.system", pickle.dumps(Calls(os.system, shell))
    yield "eval", pickle.dumps(Calls(eval, f"open({str(sign)!r}, 'w')"))
    yield "exec by name", raw_call("builtins", "exec", f"open({str(sign)!r}, 'w')")
    yield "python 2's name", raw_call("__builtin__", "eval", f"open({str(sign)!r}, 'w')")
    yield "nested in a list", pickle.dumps({"model": [1, {"a": Calls(os.system, shell)}]})
    yield "as an argument", pickle.dumps(Calls(set, [Calls(os.system, shell)]))
    yield "dotted name", b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93."
    yield "import", raw_call("builtins", "__import__", "os")
    yield (
        "torch.load in disguise",
        pickle.dumps(Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, shell)))),
    )
    yield "a near name", raw_call("ultralyticsx", "run", shell)
    yield "torch itself", raw_call("torch", "load", str(sign))
    yield "torch.hub", raw_call("torch.hub", "load", str(sign))
    yield "functools", raw_call("functools", "partial", shell)
    yield "bytearray", raw_call("builtins", "bytearray", "9")


@pytest.mark.parametrize("name", [name for name, _ in hostile_pickles(Path("SIGN"))])
def test_hostile_pickles_are_refused_by_name_and_nothing_runs(name: str, tmp_path: Path) -> None:
    sign = tmp_path / "SIGN"
    path = archive(tmp_path / "hostile.pt", dict(hostile_pickles(sign))[name])
    with pytest.raises(WeightsError, match=r"hostile\.pt is refused: its pickle asks for"):
        read_pt(path)
    assert not sign.exists()


def test_the_hostile_pickles_would_have_worked(tmp_path: Path) -> None:
    sign = tmp_path / "SIGN"
    pickle.loads(dict(hostile_pickles(sign))["os.system"])
    assert sign.exists()


STAND_IN_CALLS = {
    "getattr of a stand-in": b"cbuiltins\ngetattr\n(ctorch.nn\nfunctional\nVsystem\ntR(V%s\ntR.",
    "python 2's getattr": b"c__builtin__\ngetattr\n(cultralytics.os\nx\nVsystem\ntR(V%s\ntR.",
    "dill": b"cdill._dill\n_load_type\n(VFunctionType\ntR(V%s\ntR.",
    "ultralytics' own doors": b"cultralytics.utils.checks\nos.system\n(V%s\ntR.",
    "torch.nn's doors": b"ctorch.nn.modules.module\nos.system\n(V%s\ntR.",
}


@pytest.mark.parametrize("name", STAND_IN_CALLS)
def test_calls_of_stand_ins_do_nothing(name: str, tmp_path: Path) -> None:
    sign = tmp_path / "SIGN"
    pickled = STAND_IN_CALLS[name] % command(sign).encode()
    content = read_pt(archive(tmp_path / "hostile.pt", pickled))
    assert isinstance(content, StandIn)
    assert not sign.exists()


def test_getattr_of_os_is_refused(tmp_path: Path) -> None:
    pickled = b"cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR(Vtrue\ntR."
    with pytest.raises(WeightsError, match=r"asks for 'os.__dict__'"):
        read_pt(archive(tmp_path / "hostile.pt", pickled))


@pytest.mark.parametrize(
    "target", ["torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "torch\nSize"]
)
def test_a_pickle_cannot_change_what_is_real(target: str, tmp_path: Path) -> None:
    # BUILD with a pair sets attributes: here of the function or class itself
    pickled = f"c{target}\n(N(dVevil\nVyes\nstb.".encode()
    with pytest.raises(WeightsError, match=r"hostile\.pt is"):
        read_pt(archive(tmp_path / "hostile.pt", pickled))
    real = (torch._utils._rebuild_tensor_v2, collections.OrderedDict, torch.Size)
    assert not any(hasattr(one, "evil") for one in real)


def tensor_pickle(length: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A tensor of ``size`` and ``stride`` over a storage that claims ``length`` numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", length)
            return None

    class Storage:
        pass

    rebuild = torch._utils._rebuild_tensor_v2
    buffer = io.BytesIO()
    hooks: Any = collections.OrderedDict()
    Pickler(buffer, 2).dump(Calls(rebuild, Storage(), 0, size, stride, False, hooks))
    return buffer.getvalue()


def test_a_tensor_is_a_view_of_its_storage(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    path = archive(tmp_path / "a.pt", tensor_pickle(6, (2, 3), (3, 1)), _0=numbers.tobytes())
    assert read_pt(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("length", "size", "stride"),
    [
        (6, (7,), (1,)),
        (6, (2, 3), (4, 1)),
        (6, (10**12,), (0,)),
        (7, (6,), (1,)),
        (5, (5,), (1,)),
        (6, (-1,), (1,)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(
    length: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    pickled = tensor_pickle(length, size, stride)
    path = archive(tmp_path / "hostile.pt", pickled, _0=bytes(24))
    with pytest.raises(WeightsError, match=r"hostile\.pt is"):
        read_pt(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps([]))
        file.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(WeightsError, match=r"bomb\.pt is refused: .*compressed"):
        read_pt(path)


def test_a_module_inside_itself_is_read_once(tmp_path: Path) -> None:
    # {"model": m} where m._modules = {"model": m}
    pickled = (
        b"\x80\x02}X\x05\x00\x00\x00modelcultralytics.nn.tasks\nDetectionModel\n)\x81q\x00"
        b"}X\x08\x00\x00\x00_modules}X\x05\x00\x00\x00modelh\x00ssbs."
    )
    path = archive(tmp_path / "loop.pt", pickled)
    with pytest.raises(WeightsError, match=r"loop\.pt is not a YOLOv8 .* no model.0.conv.weight"):
        open_network(path)
