"""Writes a trained model in the layout of diffusers, fp16.

python -m training.export FOLDER [--model tiny | tiny-xl | tiny-xl-refiner]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from transformers import CLIPTokenizer

from training.autoencoder import load_autoencoder
from training.batches import TOKENIZER
from training.denoiser import load_denoiser
from training.loss import new_scheduler
from training.refiner import load_refiner
from training.xl import load_xl


def export(folder: Path, model: str = "tiny") -> None:
    """Averaged weights of the checkpoints, and the tokenizer that the captions were read with."""
    PIPELINES[model]().to(dtype=torch.float16).save_pretrained(folder)


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER)


def _tiny() -> Any:
    model = load_denoiser()
    return StableDiffusionPipeline(
        vae=load_autoencoder(),
        text_encoder=model.text_encoder,
        tokenizer=_tokenizer(),
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tiny_xl() -> Any:
    model = load_xl()
    return StableDiffusionXLPipeline(
        vae=load_autoencoder(),
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=model.unet,
        scheduler=new_scheduler(),
        add_watermarker=False,
    )


def _refiner() -> Any:
    model = load_refiner()
    return StableDiffusionXLImg2ImgPipeline(
        vae=None,  # that of tiny-xl made its latents, and reads them
        text_encoder=None,
        text_encoder_2=model.text_encoder_2,
        tokenizer=None,
        tokenizer_2=_tokenizer(),
        unet=model.unet,
        scheduler=new_scheduler(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


PIPELINES = {"tiny": _tiny, "tiny-xl": _tiny_xl, "tiny-xl-refiner": _refiner}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=PIPELINES, default="tiny")
    given = parser.parse_args()
    export(given.folder, given.model)


if __name__ == "__main__":
    main()
