"""Networks, computed in one precision from end to end.

Axes: m samples (rows), h width.
"""

import torch
from torch import nn
from torch.nn.functional import linear


class ResidualTrunk(nn.Module):
    """`layers` times x ← ReLU(x + W x + b), then a linear head in float32.

    x + W x is one product with W + 1. Weights are kept in float32; the products use the dtype of x.
    """

    def __init__(self, width: int, layers: int, outputs: int):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, outputs)
        self.register_buffer("one_hh", torch.eye(width), persistent=False)

    def forward(self, x_mh: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            x_mh = linear(x_mh, (layer.weight + self.one_hh).to(x_mh.dtype), layer.bias.to(x_mh.dtype)).relu_()
        return linear(x_mh, self.head.weight.to(x_mh.dtype), self.head.bias.to(x_mh.dtype)).float()


def bfloat16_pays(rows: int, width: int, device: str, seconds: float = 0.2) -> bool:
    """Whether bfloat16 products of this size run at least twice as fast as float32 ones here; takes `seconds`."""
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(rows, width, dtype=dtype, device=device), torch.ones(width, width, dtype=dtype, device=device)
        rates.append(_rate(lambda a=a, b=b: (a @ b)[0, 0].item(), seconds / 2))
    return rates[1] > 2 * rates[0]


def _rate(work, seconds: float) -> float:
    """Calls per second, after one call to warm up."""
    import time

    work()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        calls += 1
    return calls / (time.perf_counter() - start)
