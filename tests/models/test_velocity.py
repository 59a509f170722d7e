"""SD 1.x checkpoints that predict the velocity or end without signal: from the file to pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.faces import SerialLoop
from PIL import Image
from safetensors.torch import load_file, save_file

from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.models.catalogue import Kind, ModelSpec, Source
from afterdetail.models.entries import Prediction
from afterdetail.models.loader import load_model
from afterdetail.models.own import add
from afterdetail.models.single_file import SCHEDULE, ZERO_SNR
from afterdetail.options import Base, Sampler
from afterdetail.types import RGB

CPU = torch.device("cpu")
SIDE = 32
PROMPT, NEGATIVE = "a young woman, smiling", "old"
VELOCITY = {"prediction_type": "v_prediction"}
TRIED = (Sampler.DDIM, Sampler.K_EULER_ANCESTRAL, Sampler.DPM_PLUS_PLUS_2M_KARRAS, Sampler.PNDM)


def marked(sd15: Any, folder: Path, *marks: str) -> Path:
    """The small checkpoint with the empty tensors that trainers leave."""
    file = folder / "marked.safetensors"
    save_file({**load_file(sd15.file), **{mark: torch.zeros(0) for mark in marks}}, file)
    return file


def entry(file: Path, **told: Any) -> ModelSpec:
    return ModelSpec("mine", Kind.CHECKPOINT, Source(path=str(file)), Base.SD15, **told)


@pytest.mark.parametrize(
    ("marks", "told", "changes"),
    [
        ((), {}, {}),
        (("v_pred",), {}, VELOCITY),
        (("v_pred", "ztsnr"), {}, {**VELOCITY, **ZERO_SNR}),
        ((), {"prediction": Prediction.VELOCITY}, VELOCITY),
        (("ztsnr",), {"prediction": Prediction.VELOCITY}, {**VELOCITY, **ZERO_SNR}),
        (("v_pred",), {"zero_snr": True}, {**VELOCITY, **ZERO_SNR}),
        (("v_pred", "ztsnr"), {"prediction": Prediction.EPSILON}, {}),
        ((), {"prediction": Prediction.VELOCITY, "zero_snr": True}, {**VELOCITY, **ZERO_SNR}),
    ],
)
def test_file_and_entry_make_the_schedule_together(
    sd15: Any,
    tmp_path: Path,
    marks: tuple[str, ...],
    told: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> None:
    model = load_model(entry(marked(sd15, tmp_path, *marks), **told), CPU, torch.float32)
    assert model.scheduler_config == {**SCHEDULE, **changes}


def test_settings_beside_a_file_count_with_its_marks(sd15: Any, tmp_path: Path) -> None:
    file = marked(sd15, tmp_path, "ztsnr")
    file.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: v\n")
    model = load_model(add(tmp_path / "models.toml", file), CPU, torch.float32)
    assert model.scheduler_config == {**SCHEDULE, **VELOCITY, **ZERO_SNR}


def jobs(photo: Any) -> list[Job]:
    """One of each sampler tried, guided; models are put in later."""
    face = Image.fromarray(photo("skimage_astronaut.png")[60:160, 180:280]).resize((SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, 8:24] = 255
    return [
        Job(
            model=None,  # type: ignore[arg-type]
            image=np.asarray(face),
            mask=mask,
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            sampler=sampler,
            steps=5,
            strength=(1.0, 0.6)[index % 2],
            guidance_scale=7.5,
            seed=index + 1,
        )
        for index, sampler in enumerate(TRIED)
    ]


def run(mine: list[Job]) -> list[RGB]:
    engine = Engine()
    numbers = [engine.add(job) for job in mine]
    done: dict[int, Any] = {}
    while not engine.idle:
        done.update({finished.number: finished.outcome for finished in engine.step()})
    assert all(isinstance(outcome, np.ndarray) for outcome in done.values()), done
    return [done[number] for number in numbers]


def reference(job: Job, config: Mapping[str, Any]) -> RGB:
    """One call of ``StableDiffusionInpaintPipeline`` with a schedule made of ``config``."""
    job.model.unet.register_to_config(sample_size=64)  # the pipeline compares it, if only to warn
    model = replace(job.model, scheduler_config={**SCHEDULE, **config})
    return SerialLoop(model).paint(replace(job, model=model))


@pytest.mark.parametrize(
    ("marks", "told", "config"),
    [
        (("v_pred",), {}, VELOCITY),
        (("ztsnr",), {"prediction": Prediction.VELOCITY}, {**VELOCITY, **ZERO_SNR}),
    ],
    ids=["velocity by the file", "velocity by the entry, zero signal by the file"],
)
def test_each_job_gives_the_pipelines_picture(
    sd15: Any,
    photo: Any,
    tmp_path: Path,
    marks: tuple[str, ...],
    told: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    model = load_model(entry(marked(sd15, tmp_path, *marks), **told), CPU, torch.float32)
    mine = [replace(job, model=model) for job in jobs(photo)]
    (plain,), pictures = run([replace(mine[0], model=sd15.model)]), run(mine)
    assert not np.array_equal(pictures[0], plain)
    for job, picture in zip(mine, pictures, strict=True):
        assert np.abs(reference(job, config).astype(int) - picture).max() <= 1, job.sampler
