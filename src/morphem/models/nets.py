"""Networks, computed in one precision from end to end.

Axes: m samples (rows), h width.
"""

import time

import torch
from torch import nn
from torch.nn.functional import linear


class ResidualTrunk(nn.Module):
    """`layers` times x ← ReLU(x + W x + b), then a linear head in float32.

    x + W x is one product with W + 1. Weights are kept in float32; the products use the dtype of x.
    """

    one_hh: torch.Tensor

    def __init__(self, width: int, layers: int, outputs: int):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, outputs)
        self.register_buffer("one_hh", torch.eye(width), persistent=False)

    def forward(self, x_mh: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            x_mh = linear(x_mh, (layer.weight + self.one_hh).to(x_mh.dtype), layer.bias.to(x_mh.dtype)).relu_()
        return linear(x_mh, self.head.weight.to(x_mh.dtype), self.head.bias.to(x_mh.dtype)).float()


def bfloat16_pays(rows: int, width: int, device: str, seconds: float = 0.2) -> bool:
    """Whether bfloat16 products of this size run at least twice as fast as float32 ones here; takes `seconds`."""
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        for dtype in best:
            best[dtype] = min(best[dtype], _product_seconds(rows, width, dtype, device))
    return best[torch.float32] > 2 * best[torch.bfloat16]


def _product_seconds(rows: int, width: int, dtype: torch.dtype, device: str) -> float:
    a, b = torch.ones(rows, width, dtype=dtype, device=device), torch.ones(width, width, dtype=dtype, device=device)
    start = time.perf_counter()
    (a @ b)[0, 0].item()
    return time.perf_counter() - start
