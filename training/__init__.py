"""Trains the embedded models on rendered portraits. Needs torch, numpy, pillow and diffusers.

    python -m training PORTRAITS VARIANTS     all that follows; with an accelerator: --device cuda

    python -m training.variants RENDER OUT    heads rendered several times, with other attributes
    python -m training.crops PORTRAITS        cuts sharp and degraded crops into arrays
    python -m training.crops VARIANTS --name variants
    python -m training.attributes PORTRAITS   the classifier that the bench judges faces by
    python -m training.attributes PORTRAITS --seed 1 --out build/training/eye-1.safetensors
                                              another one, which the UNet learns from; and eye-2
    python -m training.autoencoder            pictures to latents and back
    python -m training.evaluate               its gate, on held-out crops: pass it before going on
    python -m training.denoiser               text encoder and UNet
    python -m training.preview                what it has learnt so far, as a picture
    python -m training.tower PORTRAITS        tiny-xl's second text encoder
    python -m training.xl                     tiny-xl: tiny in SDXL's layout, made to listen
    python -m training.refiner                tiny-xl's refiner
    python -m training.lora --model tiny      a LoRA, of either base
    python -m training.export FOLDER          the diffusers layout, fp16; --model tiny-xl and others
    python -m benchmarks.quality              what the exported model does to faces
    python -m benchmarks.steering             whether it does what prompts and LoRAs say

All of it lies in ``build/training``. Every command is seeded; the training ones go on where they
were stopped, and with ``python -m torch.distributed.run --nproc-per-node 2 -m training.denoiser``
several processes share a batch.
"""
