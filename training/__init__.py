"""Trains the embedded models on rendered portraits. Needs torch, numpy, pillow and diffusers.

    python -m training.crops PORTRAITS        cuts sharp and degraded crops into arrays
    python -m training.autoencoder            pictures to latents and back
    python -m training.latents                the crops as latents, so that the next step reads them
    python -m training.denoiser               text encoder and UNet
    python -m training.evaluate               the gates on held-out portraits
    python -m training.export FOLDER          the diffusers layout, fp16

All of it lies in ``build/training``; every command is seeded and goes on where it was stopped.
"""
