"""Muon (Jordan et al. 2024): momentum, made orthogonal, for matrices and convolutions.

On the small networks here a step costs next to nothing more than Adam's and is worth about two.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.parameter import Parameter
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz, tuned for slope at zero: singular values land in about 0.7 to 1.2."""


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """``matrix`` ``(M, N)`` with its singular values moved near 1, in bfloat16, which suffices."""
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = (matrix if wide else matrix.T) / (torch.linalg.norm(matrix) + 1e-7)
    x = x.bfloat16()
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T.contiguous()).float()


class Muon(Optimizer):
    """An update has the root mean square of about ``0.2 * rate``, as one of Adam's has."""

    def __init__(
        self, parameters: Iterable[Parameter], rate: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["momentum"])

    def _move(self, parameter: Parameter, rate: float, momentum: float) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        buffer = state.setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        ahead = parameter.grad.lerp(buffer, momentum).flatten(1)
        size = 0.2 * max(ahead.shape) ** 0.5
        parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-rate * size)
