"""LoRAs against diffusers' own way with them, and without a trace afterwards."""

from __future__ import annotations

import itertools
import json
import runpy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.errors import InvalidInput, ModelUnavailable
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import ModelPool
from afterdetail.models.lora import with_loras
from afterdetail.options import Base

pytest.importorskip("peft")  # the reference needs it

RANK, ALPHA = 4, 2.0
original_name = runpy.run_path(str(Path(__file__).with_name("original_layout.py")))["unet_name"]
Tensors = dict[str, torch.Tensor]
Layers = Mapping[str, torch.nn.Module]


def adapted_layers(model: DiffusionModel) -> Layers:
    """Those that trainers adapt: attention, feed-forward, some convolutions; both text encoders."""
    ends = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "proj_in")
    found = {
        f"unet.{name}": module for name, module in model.unet.named_modules() if name.endswith(ends)
    }
    for part in ("text_encoder", "text_encoder_2"):
        if part in model.networks:
            found |= {
                f"{part}.{name}": module
                for name, module in model.networks[part].named_modules()
                if name.endswith(("q_proj", "out_proj", "fc1"))
            }
    return found


def factors(layer: Any, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random down and up matrices of a layer, large enough to show."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(layer, torch.nn.Conv2d):
        down = (RANK, layer.in_channels, *layer.kernel_size)
        up: tuple[int, ...] = (layer.out_channels, RANK, 1, 1)
    else:
        down, up = (RANK, layer.in_features), (layer.out_features, RANK)
    return (
        torch.randn(down, generator=generator) * 0.2,
        torch.randn(up, generator=generator) * 0.2,
    )


def peft_layout(layers: Layers, seed: int) -> Tensors:
    tensors: Tensors = {}
    for number, (name, layer) in enumerate(layers.items()):
        down, up = factors(layer, seed + number)
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return tensors


def kohya_layout(layers: Layers, seed: int) -> Tensors:
    tensors: Tensors = {}
    second = any(name.startswith("text_encoder_2.") for name in layers)
    for number, (name, layer) in enumerate(layers.items()):
        network, _, rest = name.partition(".")
        if network == "unet":  # for SDXL it names layers as the original code does
            start = "lora_unet_"
            rest = original_name(f"{rest}.", 3, []).removesuffix(".") if second else rest
        else:
            start = {"text_encoder": "lora_te1_" if second else "lora_te_"}.get(
                network, "lora_te2_"
            )
            rest = f"text_model.{rest.removeprefix('text_model.')}"
        key = start + rest.replace(".", "_")
        down, up = factors(layer, seed + number)
        tensors |= {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": torch.tensor(ALPHA),
        }
    return tensors


LAYOUTS: dict[str, Callable[[Layers, int], Tensors]] = {"peft": peft_layout, "kohya": kohya_layout}


def write(folder: Path, name: str, tensors: Tensors, **metadata: str) -> ModelSpec:
    file = folder / f"{name}.safetensors"
    save_file(tensors, file, metadata)
    return ModelSpec(name, Kind.LORA, Source(path=str(file)), Base.SD15)


def by_diffusers(model: DiffusionModel, uses: list[LoraUse]) -> Tensors:
    """The tensors that diffusers' own loader makes of a model, which is used up by it."""
    common = {
        "vae": model.vae,
        "unet": model.unet,
        "scheduler": DDIMScheduler.from_config(dict(model.scheduler_config)),
    }
    text = {"text_encoder": model.text_encoder, "tokenizer": model.tokenizer}
    if model.base is Base.SDXL:
        second = {"text_encoder_2": model.text_encoder_2, "tokenizer_2": model.tokenizer_2}
        pipe = StableDiffusionXLPipeline(**common, **text, **second)
    else:
        pipe = StableDiffusionPipeline(
            **common,
            **text,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    for use in uses:  # one after the other: a second one in a text encoder undoes the first
        pipe.load_lora_weights(str(use.spec.source.path), adapter_name=use.spec.name)
        pipe.set_adapters(use.spec.name, use.weight)
        pipe.fuse_lora(components=list(set(model.networks) - {"vae"}))
        pipe.unload_lora_weights()
    return bits(model)


def changed(one: Tensors, other: Tensors) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def bits(model: DiffusionModel) -> Tensors:
    """Every tensor of a model, as it is now."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in model.networks.items()
        for key, tensor in network.state_dict().items()
    }


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


WEIGHTS = [(1.0,), (-0.7,), (0.5, 1.3)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_weights_are_those_that_diffusers_own_loader_makes(
    make: Callable[[str], DiffusionModel],
    tmp_path: Path,
    layout: str,
    kind: str,
    weights: tuple[float, ...],
) -> None:
    model = make(kind)
    layers = adapted_layers(model)
    uses = [
        LoraUse(write(tmp_path, f"l{number}", LAYOUTS[layout](layers, 1000 * number)), weight)
        for number, weight in enumerate(weights)
    ]
    before = bits(model)
    ours = bits(with_loras(model, frozenset(uses)))
    assert same(bits(model), before), "the base has changed"
    theirs = by_diffusers(model, uses)
    assert changed(ours, before) == changed(theirs, before) == {f"{name}.weight" for name in layers}
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert torch.allclose(ours[name], expected, atol=1e-6, rtol=1e-5), name


def test_the_files_own_configuration_is_honoured(
    make: Callable[[str], DiffusionModel], tmp_path: Path
) -> None:
    """diffusers writes rank and alpha into the metadata of its files."""
    model = make("sd15")
    layers = {name: layer for name, layer in adapted_layers(model).items() if "attn" in name}
    settings = {
        "unet.r": RANK,
        "unet.lora_alpha": 3 * RANK,
        "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
    }
    tensors = {key: value for key, value in peft_layout(layers, 5).items() if key[:4] == "unet"}
    spec = write(tmp_path, "l", tensors, lora_adapter_metadata=json.dumps(settings))
    plain = write(tmp_path, "p", tensors)
    ours = bits(with_loras(model, [LoraUse(spec, 0.5)]))
    assert not same(ours, bits(with_loras(model, [LoraUse(plain, 0.5)])))
    theirs = by_diffusers(model, [LoraUse(spec, 0.5)])
    for name, expected in theirs.items():
        assert torch.allclose(ours[name], expected, atol=1e-6, rtol=1e-5), name


def test_only_changed_layers_take_memory(
    make: Callable[[str], DiffusionModel], tmp_path: Path
) -> None:
    model = make("sd15")
    layers = adapted_layers(model)
    use = LoraUse(write(tmp_path, "l", kohya_layout(layers, 0)), 1.0)
    adapted = with_loras(model, [use])
    changed = {f"{name}.weight" for name in layers}
    for name, network in model.networks.items():
        after = adapted.networks[name].state_dict()
        for key, tensor in network.state_dict().items():
            shared = tensor.data_ptr() == after[key].data_ptr()
            assert shared == (f"{name}.{key}" not in changed), f"{name}.{key}"


def test_a_set_gives_the_same_bits_in_any_order(
    make: Callable[[str], DiffusionModel], tmp_path: Path
) -> None:
    model = make("sd15")
    layers = adapted_layers(model)
    uses = [
        LoraUse(write(tmp_path, f"l{n}", peft_layout(layers, 1000 * n)), 0.3 + n) for n in range(3)
    ]
    assert same(bits(with_loras(model, uses)), bits(with_loras(model, uses[::-1])))


def paint(engine: Engine, job: Job) -> None:
    engine.add(job)
    finished = []
    while not engine.idle:
        finished += engine.step()
    (only,) = finished
    assert isinstance(only.outcome, np.ndarray), only.outcome


def test_a_switch_between_sets_in_memory_is_cheap_and_loads_nothing(
    sd15: Any, tmp_path: Path
) -> None:
    """In seconds of this thread's CPU, which other work on the machine does not add to.

    No prompt comes twice, so each picture runs all that a set changes: text encoder and UNet.
    """
    base = ModelSpec("a", Kind.CHECKPOINT, Source(path=str(sd15.file)), Base.SD15)
    layers = adapted_layers(sd15.model)
    one, other = (
        frozenset({LoraUse(write(tmp_path, name, kohya_layout(layers, seed)), 0.1)})
        for seed, name in enumerate(("one", "other"))
    )
    pool, engine, numbers = ModelPool(torch.device("cpu")), Engine(), itertools.count()
    picture, mask = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 255, np.uint8)

    def cost(uses: frozenset[LoraUse]) -> float:
        began = time.thread_time()
        model, prompt = pool.get(base, uses), f"face {next(numbers)}"
        paint(engine, Job(model, picture, mask, prompt, steps=1, strength=1.0))
        return time.thread_time() - began

    for uses in (one, other):
        cost(uses)
    before = pool.stats
    pairs = [(cost(here), cost(there)) for here, there in [(other, one), (one, other)] * 3]
    assert pool.stats == before
    staying, switching = map(statistics.median, zip(*pairs, strict=True))
    assert switching - staying < 0.3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def odd(file: Path) -> None:
    save_file({"lora_unet_nothing_here.lora_down.weight": torch.ones(4, 4)}, file)


def no_pair(file: Path) -> None:
    save_file({k: v for k, v in load_file(file).items() if "lora_B" not in k}, file)


def other_names(file: Path) -> None:
    save_file({f"transformer.{k}": v for k, v in load_file(file).items()}, file)


@pytest.mark.parametrize("harm", [cut, odd, no_pair, other_names])
def test_a_broken_file_is_refused_and_leaves_no_trace(
    make: Callable[[str], DiffusionModel], tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    model = make("sd15")
    before = bits(model)
    good = LoraUse(write(tmp_path, "good", peft_layout(adapted_layers(model), 0)), 1.0)
    bad = LoraUse(write(tmp_path, "bad", peft_layout(adapted_layers(model), 0)), 1.0)
    harm(Path(str(bad.spec.source.path)))
    with pytest.raises(InvalidInput) as caught:
        with_loras(model, [bad, good])
    assert (caught.value.code, caught.value.field) == ("adapter_incompatible", "loras")
    assert str(tmp_path) not in caught.value.public
    assert "\n" not in str(caught.value)
    assert same(bits(model), before)
    with_loras(model, [good])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("of", "on"), [("sdxl", "sd15"), ("sd15", "sdxl")])
def test_a_lora_of_another_base_is_refused(
    make: Callable[[str], DiffusionModel], tmp_path: Path, layout: str, of: str, on: str
) -> None:
    spec = write(tmp_path, "l", LAYOUTS[layout](adapted_layers(make(of)), 0))
    model = make(on)
    before = bits(model)
    with pytest.raises(InvalidInput, match="does not fit this model"):
        with_loras(model, [LoraUse(spec, 1.0)])
    assert same(bits(model), before)


def test_a_missing_file_is_named(make: Callable[[str], DiffusionModel], tmp_path: Path) -> None:
    spec = ModelSpec("gone", Kind.LORA, Source(path=str(tmp_path / "x.safetensors")), Base.SD15)
    with pytest.raises(ModelUnavailable, match="weights of gone are missing"):
        with_loras(make("sd15"), [LoraUse(spec, 1.0)])
