"""A1111's API, as far as clients of the ADetailer extension use it: ``/sdapi/v1``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from afterdetail.errors import InvalidInput
from afterdetail.images.files import check_size
from afterdetail.images.infotext import infotext, ordinal
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec
from afterdetail.results import DetailResult
from afterdetail.schema.a1111 import (
    ADETAILER,
    MEDIAPIPE,
    OF_NO_EFFECT,
    Img2Img,
    parse_img2img,
)
from afterdetail.schema.a1111_args import AdetailerArgs
from afterdetail.schema.a1111_samplers import SAMPLERS
from afterdetail.schema.request import ImageEncoding
from afterdetail.schema.translate import json_object
from afterdetail.schema.v1 import report
from afterdetail.server.admission import Permit
from afterdetail.server.answers import as_base64
from afterdetail.server.calls import WORK_OF_LOOKING, Effort
from afterdetail.server.errors import problem
from afterdetail.server.service import Service
from afterdetail.server.v1_answers import Withheld
from afterdetail.types import Picture, Size

PREFIX = "/sdapi/v1"
UNKNOWN_SEED = -1
"""Told where no job ran."""
NOT_HERE = (
    "{name:.60} is not served here: of this API there are img2img, to detail finished pictures, "
    "and {others}"
)
NOT_KEPT = (
    "nothing is set for later requests: send {name:.60} in override_settings of each, "
    "or here as GET tells it"
)


@dataclass(frozen=True, slots=True)
class WebUI:
    """The web UI's doors, on the service that the contract's endpoint is on."""

    service: Service

    async def img2img(self, request: Request) -> Response:
        """Detail the picture; nothing else of img2img is served."""
        with self.service.door.inside():
            parse = partial(_parse, self.service)
            lifetime = self.service.lifetime()
            call, permit = await self.service.let_in(request, parse)
            if call.stages:
                self.service.admission.know(permit, Effort.of(call.stages))
            else:
                permit.work = WORK_OF_LOOKING
            work = self.service.begin(self._detail(call, permit, lifetime), permit)
            return await self.service.while_connected(request, work, lifetime)

    async def _detail(self, call: Img2Img, permit: Permit, lifetime: Lifetime) -> Response:
        def work(picture: Picture) -> tuple[DetailResult, Response]:
            scaled = _scaled(picture, call.size, self.service.settings.max_pixels)
            result = self.service.loaded().run(scaled, call.stages, lifetime)
            return result, _answer(call, result)

        result, response = await self.service.work_on(call, permit, lifetime, work)
        if call.stages:
            self.service.learn(result, permit)
        return response

    def options(self) -> dict[str, Any]:
        """The settings that clients look at."""
        return {
            "sd_model_checkpoint": _bases(self.catalogue)[0].name,
            "sd_checkpoint_hash": None,
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "samples_format": "png",
            "ad_bbox_sortby": "None",
        }

    async def set_options(self, request: Request) -> Response:
        """What clients send before a picture. Nothing is kept, so only what is so is agreed to.

        Raises:
            InvalidInput: a setting would change something.
        """
        with self.service.door.inside():
            given, permit = await self.service.let_in(request, json_object)
            self.service.admission.release(permit)
        for name, value in given.items():
            if not name.startswith(OF_NO_EFFECT) and self.options().get(name) != value:
                raise InvalidInput("unserved", NOT_KEPT.format(name=name), field=name[:60])
        return JSONResponse(None)

    def models(self) -> list[dict[str, Any]]:
        specs = [
            spec
            for spec in self.catalogue.models
            if spec.kind is Kind.CHECKPOINT and spec.base in self.catalogue.bases()
        ]
        return [
            {
                "title": spec.name,
                "model_name": spec.name,
                "hash": None,
                "sha256": spec.sha256,
                "filename": spec.name,
                "config": None,
            }
            for spec in (*_bases(self.catalogue), *specs)
        ]

    def loras(self) -> list[dict[str, Any]]:
        names = self.catalogue.names(Kind.LORA)
        return [{"name": name, "alias": name, "path": name, "metadata": {}} for name in names]

    def script_info(self) -> list[dict[str, Any]]:
        detectors = ["None", *MEDIAPIPE, *_weights(self.catalogue)]
        labels: list[dict[str, Any]] = [
            {"label": "Enable ADetailer", "value": False},
            {"label": "Skip img2img", "value": False},
        ]
        tab = AdetailerArgs().model_dump(exclude={"is_api", "ad_tap_enable"})
        labels += [{"label": name, "value": value} for name, value in tab.items()]
        empty = {"minimum": None, "maximum": None, "step": None, "choices": None}
        args = [{**empty, **label} for label in labels]
        for item in args:
            if item["label"] == "ad_model":
                item["choices"] = detectors
        return [{"name": ADETAILER, "is_alwayson": True, "is_img2img": True, "args": args}]

    def progress(self) -> dict[str, Any]:
        """Whether anything is being worked on; clients wait for 0."""
        jobs = self.service.loaded().engine.stats.jobs
        return {
            "progress": 0.01 if jobs else 0.0,
            "eta_relative": 0.0,
            "state": {"job_count": jobs, "skipped": False, "interrupted": False},
            "current_image": None,
            "textinfo": None,
        }

    @property
    def catalogue(self) -> Catalogue:
        return self.service.loaded().catalogue


def _parse(service: Service, body: bytes) -> Img2Img:
    return parse_img2img(body, service.loaded().catalogue)


def _bases(catalogue: Catalogue) -> list[ModelSpec]:
    return list(catalogue.bases().values())


def _weights(catalogue: Catalogue) -> list[str]:
    """Detectors that are files there, by their names there."""
    return [
        f"{spec.name}.pt"
        for spec in catalogue.models
        if spec.kind is Kind.DETECTOR and spec.source.package is None
    ]


def _scaled(picture: Picture, size: Size | None, max_pixels: int) -> Picture:
    """The picture as img2img would scale it ("just resize"), if it would."""
    if size is None or size == picture.size:
        return picture
    try:
        check_size(size, max_pixels)
    except InvalidInput as error:
        error.field = "width"
        raise
    how = Image.Resampling.LANCZOS
    rgb = np.asarray(Image.fromarray(picture.rgb).resize(size, how))
    alpha = picture.alpha
    if alpha is not None:
        alpha = np.asarray(Image.fromarray(alpha).resize(size, how))
    return Picture(rgb, alpha, picture.icc_profile)


def _answer(call: Img2Img, result: DetailResult) -> Response:
    """
    Raises:
        Withheld: the safety checker refused everything that was painted.
    """
    if result.withheld:
        raise Withheld()
    sent = [as_base64(result.picture, ImageEncoding.PNG)] if call.request.send_images else []
    parameters = call.request.model_dump(mode="json") | {"init_images": None}
    info = json.dumps(_info(call, result))
    return JSONResponse({"images": sent, "parameters": parameters, "info": info})


def _info(call: Img2Img, result: DetailResult) -> dict[str, Any]:
    """What the web UI tells of a picture, and, below a name of ours, of each object."""
    request, (width, height) = call.request, result.picture.size
    seed = next((item.seed for item in result.objects if item.seed), UNKNOWN_SEED)
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt],
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt],
        "seed": seed,
        "all_seeds": [seed],
        "width": width,
        "height": height,
        "sampler_name": request.sampler_name or request.sampler_index,
        "cfg_scale": request.cfg_scale,
        "steps": request.steps,
        "batch_size": 1,
        "denoising_strength": request.denoising_strength,
        "index_of_first_image": 0,
        "styles": [],
        "infotexts": [_infotext(call, result, seed)],
        "afterdetail": {
            "objects": [report(item).model_dump() for item in result.objects],
            "timings": dict(result.timings),
        },
    }


def _infotext(call: Img2Img, result: DetailResult, seed: int) -> str:
    request, (width, height) = call.request, result.picture.size
    settings: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": request.sampler_name or request.sampler_index,
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{width}x{height}",
    }
    for number, stage in enumerate(call.stages, start=1):
        settings[f"ADetailer model{ordinal(number)}"] = stage.detector
        settings[f"ADetailer denoising strength{ordinal(number)}"] = f"{stage.strength:g}"
    return infotext(request.prompt, request.negative_prompt, settings)


def add_routes(app: FastAPI, service: Service) -> None:
    """Put the web UI's paths into the application; they are not on its API page."""
    web_ui = WebUI(service)
    app.add_api_route(
        f"{PREFIX}/img2img", web_ui.img2img, methods=["POST"], include_in_schema=False
    )
    scripts = {"txt2img": [ADETAILER], "img2img": [ADETAILER]}
    answers = {
        "options": web_ui.options,
        "samplers": _samplers,
        "schedulers": _schedulers,
        "sd-models": web_ui.models,
        "loras": web_ui.loras,
        "scripts": lambda: scripts,
        "script-info": web_ui.script_info,
        "progress": web_ui.progress,
    }
    for name, make in answers.items():
        app.add_api_route(f"{PREFIX}/{name}", make, response_model=None, include_in_schema=False)
    app.add_api_route(
        f"{PREFIX}/options", web_ui.set_options, methods=["POST"], include_in_schema=False
    )
    others = ", ".join(answers)

    @app.api_route(PREFIX + "/{name:path}", methods=["GET", "POST"], include_in_schema=False)
    async def not_here(request: Request, name: str) -> Response:
        text = NOT_HERE.format(name=name, others=others)
        return problem(request.scope, 404, "not_found", text)


def _samplers() -> list[dict[str, Any]]:
    return [{"name": item.name, "aliases": list(item.aliases), "options": {}} for item in SAMPLERS]


def _schedulers() -> list[dict[str, Any]]:
    return [
        {"name": name.lower(), "label": name, "aliases": None}
        for name in ("Automatic", "Uniform", "Karras")
    ]
