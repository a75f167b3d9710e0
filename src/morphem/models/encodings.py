"""Positional encodings of a coordinate network.

Axes: n points, e frequencies. For each axis c and frequency f_i the features are sin(f_i k_c/D) and cos(f_i k_c/D).
Frequency f is the transform of density at ±f/2π pixels from the origin: its reach.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

FREQUENCIES: dict[str, Callable[[int], torch.Tensor]] = {}
"""name -> D -> angular frequencies f_i, E = D/2 of them."""


def _frequencies(function: Callable[[int], torch.Tensor]) -> Callable[[int], torch.Tensor]:
    FREQUENCIES[function.__name__] = function
    return function


def _powers(box: int) -> torch.Tensor:
    """i/(E − 1) for i = 0 … E − 1."""
    return torch.arange(box // 2, dtype=torch.float64) / (box // 2 - 1)


@_frequencies
def geometric(box: int) -> torch.Tensor:
    """f_i = Dπ(2/D)^(i/(E−1)): reaches from D/2 pixels down to 1."""
    return box * math.pi * (2 / box) ** _powers(box)


@_frequencies
def geometric_full(box: int) -> torch.Tensor:
    """f_i = πD(1/(πD))^(i/(E−1)): reaches from D/2 pixels down to 0.16."""
    return math.pi * box * (1 / (math.pi * box)) ** _powers(box)


@_frequencies
def low(box: int) -> torch.Tensor:
    """f_i = (D/2)(2/D)^(i/(E−1)): reaches from D/4π pixels down to 0.16."""
    return (box / 2) * (2 / box) ** _powers(box)


@_frequencies
def no_high(box: int) -> torch.Tensor:
    """f_i = (D/2)(4π/D)^(i/(E−1)): reaches from D/4π pixels down to 1."""
    return (box / 2) * (4 * math.pi / box) ** _powers(box)


@_frequencies
def linear(box: int) -> torch.Tensor:
    """f_i = 1, 2, …, D/2: reaches from 0.16 pixels up to D/4π."""
    return torch.arange(1, box // 2 + 1, dtype=torch.float64)


class PerAxis(nn.Module):
    """sin and cos of f_i k_c/D for the three axes: 6E features."""

    turn_e: torch.Tensor

    def __init__(self, box: int, frequencies: torch.Tensor):
        super().__init__()
        self.register_buffer("turn_e", (frequencies / box).float())
        self.count = 6 * len(frequencies)

    def forward(self, point_n3: torch.Tensor) -> torch.Tensor:
        """Features of points in Fourier index units; the phases reach πD/2 and are taken in float32."""
        phase_ne = (point_n3[..., None] * self.turn_e).flatten(-2)
        return torch.cat([torch.sin(phase_ne), torch.cos(phase_ne)], dim=-1)


class Gaussian(nn.Module):
    """sin and cos of (D/2) ω·k/D for 3E fixed random vectors ω ~ N(0, σ²I): 6E features."""

    turn_e3: torch.Tensor

    def __init__(self, box: int, sigma: float = 0.5):
        super().__init__()
        draw = torch.randn(3 * (box // 2), 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("turn_e3", 0.5 * sigma * draw)
        self.count = 2 * len(draw)

    def forward(self, point_n3: torch.Tensor) -> torch.Tensor:
        phase_ne = point_n3 @ self.turn_e3.T
        return torch.cat([torch.sin(phase_ne), torch.cos(phase_ne)], dim=-1)


class Raw(nn.Module):
    """k/D itself: 3 features."""

    def __init__(self, box: int):
        super().__init__()
        self.box, self.count = box, 3

    def forward(self, point_n3: torch.Tensor) -> torch.Tensor:
        return point_n3 / self.box


ENCODINGS = (*FREQUENCIES, "gaussian", "none")


def encoding(name: str, box: int) -> PerAxis | Gaussian | Raw:
    """The encoding of that name for a box of `box` pixels; it gives `.count` features."""
    if name == "gaussian":
        return Gaussian(box)
    if name == "none":
        return Raw(box)
    return PerAxis(box, FREQUENCIES[name](box))
