"""Prompts that were encoded before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from afterdetail.engine.placement import TEXT, Placement, Resident
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import Embedded, Text, encode_texts


@dataclass(slots=True)
class PromptCache:
    """Embeddings of the ``capacity`` prompts of each model that were used last.

    Requests share prompts (their negative ones above all), and so do all objects of a picture.
    """

    capacity: int = 64
    placement: Placement = field(default_factory=Resident)
    _known: WeakKeyDictionary[DiffusionModel, OrderedDict[Text, Embedded]] = field(
        default_factory=WeakKeyDictionary
    )

    def encode(self, model: DiffusionModel, texts: Sequence[Text]) -> dict[Text, Embedded]:
        """Each distinct text's embeddings; the new ones in one forward."""
        known = self._known.setdefault(model, OrderedDict())
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:
            encoded = encode_texts(self.placement.visiting(model, TEXT), fresh)
            known.update(zip(fresh, encoded, strict=True))
        found = {text: known[text] for text in texts}
        for text in found:
            known.move_to_end(text)
        while len(known) > self.capacity:
            known.popitem(last=False)
        return found
