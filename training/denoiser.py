"""Trains the text encoder and the UNet to make degraded faces sharp, and to paint described ones.

    python -m training.denoiser [--initial FOLDER] [--steps 4000]
    python -m torch.distributed.run --nproc-per-node 2 -m training.denoiser

Epsilon prediction on the betas of SD1.5. A quarter of each batch is plain diffusion of sharp
crops. The rest is what an after-detailer meets: the noised latent comes from the degraded face,
the target leads to the sharp one. ``--initial`` takes a UNet and a text encoder to begin with, as
far as their tensors fit. With an accelerator, ``--device cuda --batch 256``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.autoencoder import as_tensor, load_autoencoder, recolour
from training.crops import CROPS, SIZE
from training.linear_code import linear_encoder
from training.loop import Plan, Run, options, prepare

CHECKPOINT = Path("build/training/denoiser.pt")
TOKENIZER = Path(str(files("afterdetail"))) / "models" / "tiny" / "tokenizer"

WIDTH = 64
"""Of the text encoders."""

RESTORED = 0.75
"""Share of each batch that begins at the degraded face."""

ROLLED = 0.8
"""Share of those that are met where the model itself has led them."""

RECOLOURED = 0.2
"""Share of crops in other colours. No more: captions name hair and skin."""

WITHOUT_CAPTION = 0.25
"""Share of captions left out. More than the usual tenth: the default prompt is the empty one."""


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def text_config(vocabulary: int, layers: int, activation: str = "quick_gelu") -> CLIPTextConfig:
    """Of a CLIP text encoder, 64 wide."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=WIDTH,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


class Denoiser(nn.Module):
    """The UNet and its text encoder, trained together."""

    def __init__(self, vocabulary: int, latents: int) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(vocabulary, layers=2))
        self.unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=latents,
            out_channels=latents,
            block_out_channels=(24, 48, 96, 128),
            down_block_types=("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            time_embedding_dim=192,
        )

    def forward(self, noised: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        """Noised latents ``(B, C, h, w)``, timesteps ``(B,)``, token ids ``(B, 77)``: the noise."""
        words = self.text_encoder(tokens)[0]
        noise: Tensor = self.unet(noised, steps, words).sample
        return noise


def empty_tokens() -> Tensor:
    """``(1, 77)``: no caption."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokens: Tensor = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    return tokens


def load_denoiser(checkpoint: Path = CHECKPOINT) -> Denoiser:
    """The averaged weights of a run."""
    weights = torch.load(checkpoint, weights_only=True)["average"]
    vocabulary = weights["text_encoder.embeddings.token_embedding.weight"].shape[0]
    model = Denoiser(vocabulary, latents=weights["unet.conv_in.weight"].shape[1])
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def start_from(model: Denoiser, folder: Path) -> None:
    """Copies every tensor of a model in the diffusers layout that has the same name and shape.

    A UNet with a level less lends its levels to the inner ones.
    """
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    levels = len(model.unet.config.block_out_channels) - len(unet.config.block_out_channels)
    found = {f"unet.{_inner(name, levels)}": value for name, value in unet.state_dict().items()}
    found |= {f"text_encoder.{name}": value for name, value in text.state_dict().items()}
    for name, value in model.state_dict().items():
        if name in found and found[name].shape == value.shape:
            value.copy_(found[name])


def _inner(name: str, levels: int) -> str:
    """``name`` in a UNet that has ``levels`` more on top."""
    parts = name.split(".")
    if parts[0] == "down_blocks":
        parts[1] = str(int(parts[1]) + levels)
    return ".".join(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Latents ``(B, C, h, w)``; ``face`` ``(B, 1, h, w)`` is 1 inside the face's box."""

    sharp: Tensor
    soft: Tensor
    face: Tensor
    tokens: Tensor

    def first(self, count: int) -> Self:
        """Its first rows."""
        rows = {field.name: getattr(self, field.name)[:count] for field in fields(self)}
        return replace(self, **rows)


class Batches:
    """Crops as latents, mirrored and recoloured at random, with their captions as tokens.

    ``rows`` numbers the crops that are drawn from.
    """

    def __init__(self, folder: Path, size: int, name: str = "train", device: str = "cpu") -> None:
        self.sharp = np.load(folder / f"{name}-sharp.npy", mmap_mode="r")
        self.soft = np.load(folder / f"{name}-soft.npy", mmap_mode="r")
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        self.faces = torch.stack([inside(record["face"]) for record in records])
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self.captions = [*(record["caption"] for record in records), ""]
        self.tokens = self.tokenize(self.captions)
        self.rows = torch.arange(len(records))
        self.encode = linear_encoder(load_autoencoder().to(device))
        self.size, self.device = size, device

    def draw(self, generator: torch.Generator) -> Batch:
        chosen = self.rows[torch.randint(len(self.rows), (self.size,), generator=generator)]
        mirrored = torch.rand(self.size, generator=generator) < 0.5
        silent = torch.rand(self.size, generator=generator) < WITHOUT_CAPTION
        other = torch.rand(self.size, generator=generator) < RECOLOURED
        pair = [as_tensor(kind[chosen.numpy()], self.device) for kind in (self.sharp, self.soft)]
        for row in other.nonzero()[:, 0].tolist():
            both = recolour(torch.cat([kind[row] for kind in pair], 1).cpu(), generator)
            pair[0][row], pair[1][row] = torch.split(both.to(self.device), SIZE, 1)
        sharp, soft, faces = (
            torch.where(per_row(mirrored, part), part.flip(-1), part)
            for part in (*pair, self.faces[chosen].to(self.device))
        )
        rows = torch.where(silent, torch.full_like(chosen, -1), chosen)
        tokens = self.read(rows, generator).to(self.device)
        return Batch(self.encode(sharp), self.encode(soft), faces, tokens)

    def read(self, rows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The tokens of crops; -1 stands for no caption."""
        return self.tokens[rows]

    def tokenize(self, texts: list[str]) -> Tensor:
        """``(B, 77)``."""
        tokens: Tensor = self.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return tokens


def inside(face: dict[str, float]) -> Tensor:
    """``(1, h, w)``: 1 inside a box in pixels of the crop."""
    inside = torch.zeros(1, SIZE // 2, SIZE // 2)
    x0, y0, x1, y1 = (round(face[edge] / 2) for edge in ("x0", "y0", "x1", "y1"))
    inside[:, y0:y1, x0:x1] = 1
    return inside


class DenoiserLoss:
    """Squared error of the predicted noise, on the device that the batch is on.

    A repaint begins at a noise level r0 = sigma / alpha with the degraded latent, and DDIM carries
    its error along: at the level r, the share r / r0 of it is left if the model is without fault.
    Those are the mixtures trained on; most of them are replaced by what one or two steps of the
    model itself make of the degraded latent, so that it learns to go on from there. The noise
    wanted leads to the sharp latent. What the error adds to it is bounded by 1 / r0, after a step
    by 1 / r; the loss is weighted so that no level outweighs the others.

    Args:
        below: trains on lower timesteps alone, as a refiner, which may also begin there.
        restored: share of each batch that begins at the degraded face.
        rolled: share of those that the model takes a step with.
    """

    def __init__(
        self,
        model: nn.Module,
        below: int = 1000,
        restored: float = RESTORED,
        rolled: float = ROLLED,
    ) -> None:
        alphas = new_scheduler().alphas_cumprod
        self.model, self.alpha, self.sigma = model, alphas.sqrt(), (1 - alphas).sqrt()
        self.below, self.restored, self.rolled = below, restored, rolled

    def __call__(self, batch: Batch, generator: torch.Generator) -> Tensor:
        rest = round(self.restored * len(batch.sharp))
        begin, steps = self._times(len(batch.sharp), rest, generator)
        noise = torch.randn(batch.sharp.shape, generator=generator).to(batch.sharp)
        error = batch.soft - batch.sharp
        error[rest:] = 0
        inside, counted = self._regions(batch, rest, generator)
        alpha, sigma = self._levels(steps, noise)
        bound = per_row((self.sigma / self.alpha)[begin], noise)
        left = torch.where(inside > 0, sigma / alpha / bound, (1 - counted).expand_as(inside))
        noised = alpha * (batch.sharp + left * error) + sigma * noise
        if rolled := round(self.rolled * rest):
            begun = batch.sharp + torch.maximum(inside, 1 - counted) * error
            way = torch.rand(len(begin), generator=generator).mul(2).clamp_max(1)
            times = begin, (steps + way * (begin - steps)).long(), steps
            moved = self._roll(begun[:rolled], noise[:rolled], times, batch.first(rolled))
            noised[:rolled] = torch.where(inside[:rolled] > 0, moved, noised[:rolled])
            bound[:rolled] = (sigma / alpha)[:rolled]
        target = (noised - alpha * batch.sharp) / sigma
        squared = (self._predict(noised, steps, batch) - target).square()
        weight = torch.where(inside * error != 0, bound**2 / (1 + bound**2), 1.0)
        loss: Tensor = (weight * squared * counted).sum() / (counted.sum() * squared.shape[1])
        return loss

    def _levels(self, steps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much picture and noise there is at timesteps, for as many rows as ``like`` has."""
        count = len(like)
        return per_row(self.alpha[steps[:count]], like), per_row(self.sigma[steps[:count]], like)

    def _times(self, count: int, rest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps at which repaints begin and at which they are met, the rest anywhere."""
        begin = torch.randint(100, 500, (count,), generator=generator)
        begin[::3] = torch.randint(500, 1000, begin[::3].shape, generator=generator)
        if self.below < 1000:
            begin[1::3] = torch.randint(20, self.below, begin[1::3].shape, generator=generator)
        share = torch.rand(count, generator=generator)
        steps = (share * begin.clamp_max(self.below)).long()
        steps[rest:] = (share[rest:] * self.below).long()
        return begin, steps

    @torch.no_grad()
    def _roll(self, begun: Tensor, noise: Tensor, times: Sequence[Tensor], batch: Batch) -> Tensor:
        """Where DDIM leads from the latents begun with, in steps from each time to the next."""
        alpha, sigma = self._levels(times[0], noise)
        noised = alpha * begun + sigma * noise
        for start, end in pairwise(times):
            found = self._predict(noised, start[: len(noise)], batch)
            alpha, sigma = self._levels(start, noise)
            sharp = (noised - sigma * found) / alpha
            alpha, sigma = self._levels(end, noise)
            noised = alpha * sharp + sigma * found
        return noised

    def _predict(self, noised: Tensor, steps: Tensor, batch: Batch) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=noised.is_cuda):
            return self.predict(noised, steps.to(noised.device), batch).float()

    def predict(self, noised: Tensor, steps: Tensor, batch: Batch) -> Tensor:
        """The noise that the model finds in ``noised`` when it is told what ``batch`` tells."""
        noise: Tensor = self.model(noised, steps, batch.tokens)
        return noise

    @staticmethod
    def _regions(batch: Batch, rest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where the error fades, and where the loss counts.

        A quarter of the degraded pictures become sharp as a whole. Around another quarter of the
        faces the picture is sharp already; around half it stays as degraded as it was, and the loss
        does not count there: the engine puts the picture back.
        """
        kind = torch.randint(4, (len(batch.face), 1, 1, 1), generator=generator).clamp_max(2)
        kind = kind.to(batch.face.device)
        inside = torch.where(kind == 0, torch.ones_like(batch.face), batch.face)
        counted = torch.where(kind == 2, batch.face, torch.ones_like(batch.face))
        counted[rest:] = 1
        return inside, counted


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(B,)`` as ``(B, 1, 1, 1)``, where ``like`` is."""
    return values[:, None, None, None].to(like.device)


def main() -> None:
    parser = options(__doc__, steps=4000, batch=16, rate=1e-3, device=True)
    parser.add_argument("--initial", type=Path, help="model in the diffusers layout")
    given = prepare(parser)
    batches = Batches(CROPS, given.batch, device=given.device)
    vocabulary = int(batches.tokens.max()) + 1
    model = Denoiser(vocabulary, latents=4)
    model = model.to(given.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if given.initial is not None:
        start_from(model, given.initial)
    average = max(0.995, 1 - 20 / given.steps)
    plan = Plan(given.steps, given.rate, average=average, save_every=50)
    run = Run(model, plan, CHECKPOINT, given.seed)
    loss = DenoiserLoss(model)
    run.train(lambda generator: loss(batches.draw(generator), generator))


if __name__ == "__main__":
    main()
