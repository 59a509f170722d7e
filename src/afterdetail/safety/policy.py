"""What is done with a checker's scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afterdetail.errors import InvalidInput
from afterdetail.safety.checker import Checker, OpenNsfw
from afterdetail.types import RGB

THRESHOLD = 0.8
"""No false alarm on 50 ordinary photographs and their 61 face crops; at 0.5 there were three."""


@dataclass(frozen=True, slots=True)
class SafetyPolicy:
    """Refuses crops that score ``threshold`` or more, or that the policy ``also`` refuses."""

    checker: Checker
    threshold: float = THRESHOLD
    also: SafetyPolicy | None = None

    def refuses(self, rgb: RGB) -> bool:
        """Whether a repainted crop, uint8 ``(H, W, 3)``, may not be shown."""
        if self.checker.score(rgb) >= self.threshold:
            return True
        return self.also is not None and self.also.refuses(rgb)


def make_policy(
    safety: str,
    threshold: float = THRESHOLD,
    folder: Path | None = None,
    adjustment: float = 0.0,
) -> SafetyPolicy | None:
    """The policy of a setting: None for ``"off"``.

    Args:
        folder: of Stable Diffusion's safety checker, which is asked too; None for none.
        adjustment: added to that one's scores.

    Raises:
        ModelUnavailable: it is on, and a classifier is not there.
    """
    if safety == "off":
        return None
    if folder is None:
        return SafetyPolicy(OpenNsfw(), threshold)
    from afterdetail.safety.concepts import REFUSED, ConceptChecker

    concepts = SafetyPolicy(ConceptChecker(folder, adjustment), REFUSED)
    return SafetyPolicy(OpenNsfw(), threshold, also=concepts)


def as_policy(safety: str | SafetyPolicy, threshold: float) -> SafetyPolicy | None:
    """What callers of the library say of safety, as a policy; None for ``"off"``.

    Raises:
        InvalidInput: it is neither a policy nor ``"on"`` nor ``"off"``.
        ModelUnavailable: as :func:`make_policy`.
    """
    if isinstance(safety, SafetyPolicy):
        return safety
    if safety not in ("on", "off"):
        raise InvalidInput("safety_unknown", f"safety is 'on' or 'off', not {safety!r}")
    return make_policy(safety, threshold)
