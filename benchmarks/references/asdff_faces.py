"""asdff on a picture: ``python asdff_faces.py FACES THREADS``; each line on stdin is a run.

Detection is left out on both sides: asdff is handed the masks. Its module of YOLO detectors, which
needs packages that nothing here uses, is replaced.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType

import diffusers
import torch
from benchmarks.faces import SIDE, face, face_jobs, oval, scheduler, tiny
from PIL import Image

yolo = ModuleType("asdff.yolo")
yolo.yolo_detector = lambda *_: None  # type: ignore[attr-defined]
sys.modules["asdff.yolo"] = yolo

from asdff.base import AdPipelineBase  # noqa: E402

FACES, THREADS = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(THREADS)
model = tiny()
job = face_jobs(1, model)[0]
parts = {
    "vae": model.vae,
    "text_encoder": model.text_encoder,
    "tokenizer": model.tokenizer,
    "unet": model.unet,
    "scheduler": scheduler(job),
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
inpaint = diffusers.StableDiffusionInpaintPipeline(**parts)
inpaint.set_progress_bar_config(disable=True)


class Pipeline(AdPipelineBase):
    inpaint_pipeline = inpaint
    txt2img_class = diffusers.StableDiffusionPipeline


picture = Image.new("RGB", (SIDE * FACES, SIDE))
masks = []
for index in range(FACES):
    picture.paste(Image.fromarray(face()), (SIDE * index, 0))
    mask = Image.new("L", picture.size)
    mask.paste(Image.fromarray(oval()), (SIDE * index, 0))
    masks.append(mask)

for _ in sys.stdin:
    start = time.process_time()
    result = Pipeline()(
        common={
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "num_inference_steps": job.steps,
            "guidance_scale": job.guidance_scale,
            "width": SIDE,
            "height": SIDE,
        },
        inpaint_only={"strength": job.strength},
        images=[picture],
        detectors=[lambda _: masks],
    )
    assert len(result.images) == 1
    print(time.process_time() - start, flush=True)
