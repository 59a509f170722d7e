"""Writes the trained model in the layout of diffusers, fp16.

python -m training.export FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from training.autoencoder import load_autoencoder
from training.denoiser import TOKENIZER, load_denoiser, new_scheduler


def export(folder: Path) -> None:
    """Averaged weights of both checkpoints, and the tokenizer that the captions were read with."""
    model = load_denoiser()
    pipeline = StableDiffusionPipeline(
        vae=load_autoencoder(),
        text_encoder=model.text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    export(parser.parse_args().folder)


if __name__ == "__main__":
    main()
