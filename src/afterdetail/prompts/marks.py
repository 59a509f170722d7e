"""The marks that other detailers' users write into prompts.

===================  ==========================================================================
``a [SEP] b``        the first object is ``a``, the second and all after it ``b``
``[SKIP]``           as a whole part: this object is left as it is
``[PROMPT]``         the main prompt, that of the whole picture; an empty part means it too
``<lora:name:0.8>``  applies a LoRA; without a weight, 1
===================  ==========================================================================

The first three are those of ADetailer (Bing-su), the last is that of AUTOMATIC1111's web UI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from afterdetail.errors import InvalidInput
from afterdetail.options import MAX_PROMPT

SEP, SKIP, PROMPT = "[SEP]", "[SKIP]", "[PROMPT]"
MAX_PARTS = 64
"""Of one prompt: as many as objects are repainted in one picture."""
_LORA = re.compile(r"<lora:([^<>]*)>")
_LORA_PARTS = re.compile(
    r"(?P<name>[^:]{1,200})(:(?P<weight>[+-]?(\d{1,6}(\.\d{0,9})?|\.\d{1,9})))?"
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one object is told: the text without marks, and the LoRAs named in it."""

    text: str
    skip: bool = False
    loras: dict[str, float] = field(default_factory=dict)


def parts(prompt: str, main: str) -> tuple[Part, ...]:
    """The parts of a prompt in turn, at least one.

    Args:
        main: the prompt of the whole picture.

    Raises:
        InvalidInput: more than ``MAX_PARTS``, a LoRA's weight that is no number, or a part that is
            too long with the main prompt in it.
    """
    texts = [text.strip() for text in prompt.split(SEP)]
    if len(texts) > MAX_PARTS:
        message = f"the prompt has {len(texts)} parts divided by {SEP}; {MAX_PARTS} are allowed"
        raise InvalidInput("too_many_parts", message, field="prompt")
    if len(texts) == 1:
        texts = [prompt] if texts[0] else [""]
    return tuple(_part(text, main) for text in texts)


def _part(text: str, main: str) -> Part:
    if text.strip() == SKIP:
        return Part("", skip=True)
    length = len(text) + text.count(PROMPT) * len(main)
    if length > MAX_PROMPT:
        message = f"the prompt has {length} characters with its {PROMPT}; {MAX_PROMPT} are allowed"
        raise InvalidInput("prompt_too_long", message, field="prompt")
    whole = text.replace(PROMPT, f" {main} ") if text else main
    loras = dict(_lora(found) for found in _LORA.findall(whole))
    return Part(_LORA.sub("", whole), loras=loras)


def _lora(mark: str) -> tuple[str, float]:
    match = _LORA_PARTS.fullmatch(mark)
    if match is None:
        message = f"<lora:{mark[:80]}> is not written as <lora:name> or <lora:name:0.8>"
        raise InvalidInput("lora_invalid", message, field="prompt")
    return match["name"].strip(), float(match["weight"] or 1)
