"""Trains the second text encoder of ``tiny-xl``: captions to vectors that tell faces apart.

    python -m training.tower PORTRAITS [--steps 600]

SDXL's second encoder comes from CLIP, which learnt what pictures go with a text; its vector of the
whole text steers the UNet as a class would. Here that vector must tell the attributes of the
portrait (those of ``training.attributes``) as well as the caption, or a part of it, allows. The
vector of the empty text is zero: without a prompt nothing is steered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from training.attributes import CHOICES, MEASURES, labels, loss_of
from training.batches import TOKENIZER
from training.captions import shortened
from training.denoiser import WIDTH, empty_tokens, text_config
from training.loop import Plan, Run, options, prepare
from training.portraits import Portrait, read_portraits

CHECKPOINT = Path("build/training/tower.pt")


class Tower(nn.Module):
    """The text encoder, and a linear layer that reads the attributes off its vectors."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        config = text_config(vocabulary, layers=3, activation="gelu")
        self.encoder = CLIPTextModelWithProjection(config)
        answers = sum(len(choice.answers) for choice in CHOICES) + len(MEASURES)
        self.head = nn.Linear(WIDTH, answers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids ``(B, T)`` to scores as :class:`training.attributes.AttributeNet` gives."""
        scores: Tensor = self.head(self.encoder(tokens).text_embeds)
        return scores


class Captions:
    """Captions, mostly shortened, with their portraits' labels."""

    def __init__(self, portraits: Sequence[Portrait], size: int) -> None:
        self.portraits, self.labels, self.size = portraits, labels(portraits), size
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.portraits), (self.size,), generator=generator)
        texts = [shortened(self.portraits[row].caption, generator) for row in chosen.tolist()]
        tokens = self.tokenizer(texts, padding="longest", return_tensors="pt").input_ids
        return tokens, self.labels[chosen]


@torch.no_grad()
def centre(encoder: CLIPTextModelWithProjection) -> None:
    """Makes the empty text's vector zero: there, normalisation has to end at zero."""
    body = getattr(encoder, "text_model", encoder)
    body.final_layer_norm.bias -= encoder(empty_tokens()).last_hidden_state[0, 1]


def load_tower(checkpoint: Path = CHECKPOINT) -> CLIPTextModelWithProjection:
    """The averaged encoder of a run, centred and frozen."""
    weights = torch.load(checkpoint, weights_only=True)["average"]
    tower = Tower(vocabulary=max(empty_tokens()[0].tolist()) + 1)
    tower.load_state_dict(weights)
    centre(tower.encoder)
    encoder: CLIPTextModelWithProjection = tower.encoder.eval().requires_grad_(False)
    return encoder


def main() -> None:
    parser = options(__doc__, steps=600, batch=64)
    parser.add_argument("portraits", type=Path, help="folder with metadata.jsonl and img/")
    given = prepare(parser)
    portraits = [portrait for portrait in read_portraits(given.portraits) if not portrait.held_out]
    captions = Captions(portraits, given.batch)
    tower = Tower(vocabulary=max(empty_tokens()[0].tolist()) + 1)

    def loss(generator: torch.Generator) -> Tensor:
        tokens, wanted = captions.draw(generator)
        return loss_of(tower(tokens), wanted)

    Run(tower, Plan(given.steps, 2e-3, average=0.99), CHECKPOINT, given.seed).train(loss)


if __name__ == "__main__":
    main()
