"""Prompt weights: the attention grammar of AUTOMATIC1111's web UI.

======================  ===============================================================
``(x)``                 x weighs 1.1
``[x]``                 x weighs 1 / 1.1
``(x:1.3)``             x weighs 1.3; a sign is allowed, blanks around the number too
``((x) y:1.3)``         nested weights multiply
``\\( \\) \\[ \\] \\\\``     the character itself
``(x:abc)``             no number: the text ``x:abc``, weighing 1.1
``x) (y``               brackets without a partner are text
======================  ===============================================================

Round and square brackets are matched apart from each other, as there. The one difference: there an
opening bracket that is never closed still weighs all that follows it; here it is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

EMPHASIS = 1.1
MAX_WEIGHT = 1000.0
"""Products are cut here, so that no pile of brackets makes an embedding infinite in 16 bit."""

# Possessive quantifiers (++, *+) never step back: the time is linear whatever the text.
_LEXEME = re.compile(
    r"""
      \\ (?P<escaped> [()\[\]\\] )
    | : \s*+ (?P<weight> [+-]? (?: [0-9]++ (?: \. [0-9]*+ )? | \. [0-9]++ ) ) \s*+ \)
    | (?P<bracket> [()\[\]] )
    | [^\\()\[\]:]++
    | [\\:]
    """,
    re.VERBOSE,
)
_PARTNER = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a prompt, without its brackets, and how much it weighs (1 is neutral)."""

    text: str
    weight: float


def parse(prompt: str) -> tuple[Fragment, ...]:
    """Split a prompt into pieces of equal weight, in order; the empty prompt has none.

    Neighbours differ in weight, and the texts joined are the prompt without its brackets. Takes
    time linear in the length of the prompt.
    """
    lexemes = list(_LEXEME.finditer(prompt))
    factors = _balanced(lexemes)
    open_weights = {"(": [1.0], "[": [1.0]}
    pieces: list[tuple[str, float]] = []
    for index, lexeme in enumerate(lexemes):
        if index not in factors:
            weight = _bounded(open_weights["("][-1] * open_weights["["][-1])
            pieces.append((lexeme["escaped"] or lexeme[0], weight))
        elif (factor := factors[index]) is None:
            open_weights[_PARTNER[lexeme[0][-1]]].pop()
        else:
            weights = open_weights[lexeme[0]]
            weights.append(_bounded(weights[-1] * factor))
    return tuple(
        Fragment("".join(text for text, _ in group), weight)
        for weight, group in groupby(pieces, key=itemgetter(1))
    )


def _balanced(lexemes: Sequence[re.Match[str]]) -> dict[int, float | None]:
    """The brackets that have a partner, by index: the factor where one opens, None at its end."""
    factors: dict[int, float | None] = {}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for index, lexeme in enumerate(lexemes):
        if not (lexeme["bracket"] or lexeme["weight"]):
            continue
        bracket = lexeme[0][-1]
        if bracket in opened:
            opened[bracket].append(index)
        elif opened[_PARTNER[bracket]]:
            factors[opened[_PARTNER[bracket]].pop()] = _factor(bracket, lexeme["weight"])
            factors[index] = None
    return factors


def _factor(closing: str, weight: str | None) -> float:
    if weight:
        return float(weight)
    return EMPHASIS if closing == ")" else 1 / EMPHASIS


def _bounded(weight: float) -> float:
    return min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)
