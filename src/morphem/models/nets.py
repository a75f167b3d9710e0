"""Networks, computed in one precision from end to end.

Axes: b images, m samples (of one image, or rows), h width, l layers, c image channels.
"""

import time

import torch
from torch import nn
from torch.nn.functional import linear


class ResidualTrunk(nn.Module):
    """`layers` times x ← ReLU(a ∘ (x + W x + b) + s), then a linear head in float32.

    x + W x is one product with W + 1. Weights are kept in float32; the products use the dtype of x. Scale a and shift
    s, where given, are (l, b, h): one a layer and image; otherwise 1 and 0.
    """

    one_hh: torch.Tensor

    def __init__(self, width: int, layers: int, outputs: int):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, outputs)
        self.register_buffer("one_hh", torch.eye(width), persistent=False)

    def forward(self, x_mh: torch.Tensor, film: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        for number, layer in enumerate(self.hidden):
            assert isinstance(layer, nn.Linear)
            x_mh = linear(x_mh, (layer.weight + self.one_hh).to(x_mh.dtype), layer.bias.to(x_mh.dtype))
            if film is not None:
                scale_bh, shift_bh = (value_lbh[number].to(x_mh.dtype) for value_lbh in film)
                x_mh = x_mh * scale_bh[:, None] + shift_bh[:, None]
            x_mh = x_mh.relu_()
        return self.head(x_mh.float())


class Film(nn.Module):
    """z to a scale 1 + a and a shift s for every layer, (l, b, h) each, by one hidden layer.

    Source: Perez et al., FiLM: visual reasoning with a general conditioning layer, AAAI (2018).
    """

    def __init__(self, latent_dim: int, width: int, layers: int):
        super().__init__()
        self.layers = layers
        self.net = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, 2 * layers * width))

    def forward(self, z_bq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value_lbh = self.net(z_bq).unflatten(1, (2 * self.layers, -1)).movedim(1, 0)
        return 1 + value_lbh[: self.layers], value_lbh[self.layers :]


class Convolutions(nn.Module):
    """3 × 3 convolutions of stride 2 with group norm and ReLU, then the mean over the picture: (b, y, x) to (b, c)."""

    CHANNELS = (32, 64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        steps = zip((1, *self.CHANNELS[:-1]), self.CHANNELS, strict=True)
        stages = [(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(8, o), nn.ReLU()) for i, o in steps]
        self.stages = nn.Sequential(*(part for stage in stages for part in stage))

    def forward(self, image_byx: torch.Tensor) -> torch.Tensor:
        return self.stages(image_byx[:, None]).mean((2, 3))


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
