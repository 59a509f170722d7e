"""Every backend gives eager's numbers, at any number of rows."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from afterdetail.config import BackendName
from afterdetail.engine import graphs
from afterdetail.engine.backend import Backend, EagerBackend, make_backend
from afterdetail.engine.graphs import GraphBackend, bucket
from afterdetail.engine.ircache import IRCache, fingerprint
from afterdetail.engine.openvino import MOST_SHAPES, OpenVINOBackend
from afterdetail.errors import InvalidInput
from afterdetail.models.diffusion import DiffusionModel

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(rows: int, side: int = 8, tokens: int = 77) -> Inputs:
    chance = torch.Generator().manual_seed(rows)
    return (
        torch.randn(rows, 4, side, side, generator=chance),
        torch.linspace(999, 0.5, rows),
        torch.randn(rows, tokens, 64, generator=chance),
    )


@pytest.mark.parametrize(("rows", "side", "tokens"), [(1, 8, 77), (3, 8, 77), (5, 16, 154)])
def test_a_backend_gives_eagers_numbers(
    tiny: DiffusionModel, backend: Backend, rows: int, side: int, tokens: int
) -> None:
    given = inputs(rows, side, tokens)
    with torch.inference_mode():
        expected = EagerBackend().predict(tiny, *given)
        actual = backend.predict(tiny, *given)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_results_stay_as_they_are_when_the_backend_runs_again(
    tiny: DiffusionModel, backend: Backend
) -> None:
    with torch.inference_mode():
        first = backend.predict(tiny, *inputs(2))
        kept = first.clone()
        backend.predict(tiny, *(part * 0.5 for part in inputs(2)))
    assert torch.equal(first, kept)


def test_rows_apart_means_to_the_last_bit(tiny: DiffusionModel, backend: Backend) -> None:
    if not backend.rows_apart:
        pytest.skip("this backend promises rounding only")
    given = inputs(4)
    with torch.inference_mode():
        together = backend.predict(tiny, *given)
        alone = [backend.predict(tiny, *(part[i : i + 1] for part in given)) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_a_cpu_gets_the_rows_that_keep_it_busy_whoever_runs_them(tiny: DiffusionModel) -> None:
    of_eager = EagerBackend().rows_on_cpu(tiny)
    compiled = OpenVINOBackend(streams=2, threads=8)
    assert GraphBackend().rows_on_cpu(tiny) == of_eager
    assert compiled.rows_on_cpu(tiny) == 2
    assert compiled.rows_on_cpu(replace(tiny, adapted=True)) == of_eager
    assert compiled.rows_on_cpu(with_sizes(tiny)) == of_eager


def test_sdxls_added_conditioning_reaches_the_unet(tiny: DiffusionModel, backend: Backend) -> None:
    model = with_sizes(tiny)
    given = inputs(3)
    added = torch.cat([torch.randn(3, 16), torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 3)], 1)
    with torch.inference_mode():
        expected = EagerBackend().predict(model, *given, added)
        actual = backend.predict(model, *given, added)
        others = backend.predict(model, *given, added * 0.5)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(actual, others, atol=1e-3)


def with_sizes(model: DiffusionModel) -> DiffusionModel:
    """A small UNet that takes a pooled text and six numbers, as SDXL's does."""
    torch.manual_seed(0)
    layout = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    }
    unet = UNet2DConditionModel.from_config({**model.unet.config, **layout}).eval()
    return replace(model, unet=unet.requires_grad_(False))


def test_a_model_may_go_though_a_backend_ran_it(tiny: DiffusionModel, backend: Backend) -> None:
    model = with_sizes(tiny)
    added = torch.zeros(1, 22)
    with torch.inference_mode():
        backend.predict(model, *inputs(1), added)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", [None, "auto", "eager"])
def test_without_a_gpu_and_openvino_eager_runs(
    name: BackendName | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterdetail.engine.openvino.installed", lambda: False)
    assert make_backend(name, torch.device("cpu")).name == "eager"


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (None, "cpu", "eager"),
        ("auto", "cpu", "openvino"),
        ("openvino", "cpu", "openvino"),
        ("auto", "mps", "eager"),
        (None, "cuda", "graphs"),
        ("auto", "cuda", "graphs"),
        ("graphs", "cuda", "graphs"),
        ("eager", "cuda", "eager"),
    ],
)
def test_a_backend_is_chosen_by_device(
    name: BackendName | None, device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterdetail.engine.openvino.installed", lambda: True)
    assert make_backend(name, torch.device(device)).name == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openvino", "pip install 'afterdetail\\[openvino\\]'"),
        ("graphs", "CUDA"),
        ("fast", "'fast'; backends: auto, eager, graphs, openvino"),
    ],
)
def test_a_backend_that_cannot_be_had_is_refused(
    name: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterdetail.engine.openvino.installed", lambda: False)
    with pytest.raises(InvalidInput, match=said) as error:
        make_backend(name, torch.device("cpu"))
    assert error.value.field == "backend"


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 1), (2, 2), (3, 4), (5, 6), (9, 12), (33, 48), (64, 64)]
)
def test_rows_are_filled_up_to_a_bucket(rows: int, expected: int) -> None:
    assert bucket(rows) == expected


def test_recordings_are_bounded(tiny: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    backend = GraphBackend()
    with torch.inference_mode():
        for rows in (1, 2, 4):
            backend.predict(tiny, *inputs(rows))
    assert [key[0] for key in backend._recordings[tiny]] == [2, 4]


def test_compiled_shapes_are_bounded(tiny: DiffusionModel) -> None:
    pytest.importorskip("openvino")
    backend = OpenVINOBackend()
    backend.prepare(tiny, [(16 * n, 16) for n in range(1, MOST_SHAPES + 1)])
    with torch.inference_mode():
        backend.predict(tiny, *inputs(1, side=16))
    network = backend._networks[tiny.unet]
    assert network is not None
    assert len(network.queues) == MOST_SHAPES


def test_what_cannot_be_converted_runs_eagerly(
    tiny: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DiffusionModel) -> Any:
        raise RuntimeError("an operation nobody knows")

    monkeypatch.setattr("afterdetail.engine.openvino.convert", refuse)
    with torch.inference_mode():
        actual = OpenVINOBackend(cache=None).predict(tiny, *inputs(2))
        assert torch.equal(actual, EagerBackend().predict(tiny, *inputs(2)))


def test_a_model_with_loras_is_not_compiled(tiny: DiffusionModel) -> None:
    pytest.importorskip("openvino")
    backend = OpenVINOBackend(cache=None)
    with torch.inference_mode():
        backend.predict(replace(tiny, adapted=True), *inputs(1))
    assert len(backend._networks) == 0


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_nobody_is_told_of_a_conversion() -> None:
    script = """
import socket, sys
from afterdetail.engine.ircache import runtime
def refuse(*_): sys.exit("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
runtime().convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
sys.exit(sys.modules["openvino_telemetry"] is not None)
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False)
    assert run.returncode == 0


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
class TestIRCache:
    def test_a_converted_network_is_read_back(self, tiny: DiffusionModel, tmp_path: Path) -> None:
        graph = small_graph()
        cache = IRCache(tmp_path)
        cache.get(tiny.unet, lambda: graph)
        again = cache.get(tiny.unet, refuse)
        assert [op.get_type_name() for op in again.get_ops()] == [
            op.get_type_name() for op in graph.get_ops()
        ]

    def test_a_damaged_one_is_converted_again(self, tiny: DiffusionModel, tmp_path: Path) -> None:
        cache = IRCache(tmp_path)
        cache.get(tiny.unet, small_graph)
        (file,) = tmp_path.glob("*/unet.xml")
        file.write_text("<net", encoding="utf-8")
        graph = small_graph()
        assert cache.get(tiny.unet, lambda: graph) is graph

    def test_a_folder_that_cannot_be_written_costs_time_only(
        self, tiny: DiffusionModel, tmp_path: Path
    ) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("not a folder", encoding="utf-8")
        graph = small_graph()
        assert IRCache(blocked).get(tiny.unet, lambda: graph) is graph

    def test_the_oldest_leave_first(
        self, tiny: DiffusionModel, nine_channels: DiffusionModel, tmp_path: Path
    ) -> None:
        cache = IRCache(tmp_path, capacity=1)
        cache.get(tiny.unet, small_graph)
        cache.get(nine_channels.unet, small_graph)
        assert [item.name for item in tmp_path.iterdir()] == [fingerprint(nine_channels.unet)]

    def test_other_weights_have_another_name(self, nine_channels: DiffusionModel) -> None:
        before = fingerprint(nine_channels.unet)
        bias = nine_channels.unet.conv_out.bias
        bias.add_(1)
        after = fingerprint(nine_channels.unet)
        bias.sub_(1)
        assert before != after


def refuse() -> Any:
    raise AssertionError("it was in the cache")


def small_graph() -> Any:
    openvino = pytest.importorskip("openvino")
    return openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
