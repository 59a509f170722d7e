"""Trains the embedded model on rendered portraits. Needs torch, numpy, pillow and diffusers.

    python -m training PORTRAITS              all of it; with an accelerator: --device cuda

    python -m training.crops PORTRAITS        cuts sharp and degraded crops into arrays
    python -m training.attributes PORTRAITS   the classifier that the bench judges faces by
    python -m training.autoencoder            pictures to latents and back
    python -m training.evaluate               its gate, on held-out crops: pass it before going on
    python -m training.denoiser               text encoder and UNet
    python -m training.preview                what it has learnt so far, as a picture
    python -m training.export FOLDER          the diffusers layout, fp16
    python -m benchmarks.quality              what the exported model does to faces

All of it lies in ``build/training``. Every command is seeded; the training ones go on where they
were stopped, and with ``python -m torch.distributed.run --nproc-per-node 2 -m training.denoiser``
several processes share a batch.
"""
