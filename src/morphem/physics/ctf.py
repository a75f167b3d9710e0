"""The contrast transfer function.

Axes: b images, n table rows, k Fourier samples. Å, radians, kV; Cs in mm.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch


@dataclass(frozen=True)
class CtfParameters:
    """One row per image. Underfocus is positive; `phase_shift_rad` is what a phase plate adds."""

    defocus_u_A_n: np.ndarray
    defocus_v_A_n: np.ndarray
    astigmatism_rad_n: np.ndarray
    voltage_kV_n: np.ndarray
    cs_mm_n: np.ndarray
    amplitude_contrast_n: np.ndarray
    phase_shift_rad_n: np.ndarray
    scale_n: np.ndarray
    b_factor_A2_n: np.ndarray

    def take(self, index: np.ndarray) -> "CtfParameters":
        """The rows at `index`."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def at_defocus(self, more_A: float | np.ndarray) -> "CtfParameters":
        """The same at defoci that much larger, U and V alike."""
        return replace(self, defocus_u_A_n=self.defocus_u_A_n + more_A, defocus_v_A_n=self.defocus_v_A_n + more_A)

    def __len__(self) -> int:
        return len(self.defocus_u_A_n)


def wavelength_A(voltage_kV):
    """Relativistic electron wavelength, λ = 12.2639/√(V + 0.97845e-6 V²) Å with V in volts."""
    volts = 1000.0 * voltage_kV
    return 12.2639 / (volts + 0.97845e-6 * volts**2) ** 0.5


def ctf(parameters: CtfParameters, pixel_A_n: np.ndarray, k_k2: np.ndarray, box: int) -> torch.Tensor:
    """CTF = √(1−w²) sin γ − w cos γ, times scale · exp(−B s²/4); float32 (n, k).

    γ = 2π(−½Δλs² + ¼C λ³s⁴) − φ, s = |k|/(box·pixel) in 1/Å, C = Cs·10⁷ Å, and
    Δ = ½[U + V + (U−V) cos 2(α−α₀)] with α = atan2(ky, kx). CTF(0) = −w·scale.
    """
    p = {f.name: torch.as_tensor(getattr(parameters, f.name), dtype=torch.float64)[:, None] for f in fields(parameters)}
    kx_k, ky_k = torch.as_tensor(k_k2, dtype=torch.float64).unbind(1)
    angle_k = torch.atan2(ky_k, kx_k)
    s2_nk = (kx_k**2 + ky_k**2) / (box * torch.as_tensor(pixel_A_n, dtype=torch.float64)[:, None]) ** 2
    u, v, w = p["defocus_u_A_n"], p["defocus_v_A_n"], p["amplitude_contrast_n"]
    wavelength = wavelength_A(p["voltage_kV_n"])
    defocus_nk = 0.5 * (u + v + (u - v) * torch.cos(2 * (angle_k - p["astigmatism_rad_n"])))
    phase_nk = torch.pi * wavelength * s2_nk * (0.5e7 * p["cs_mm_n"] * wavelength**2 * s2_nk - defocus_nk)
    gamma_nk = phase_nk - p["phase_shift_rad_n"]
    envelope_nk = p["scale_n"] * torch.exp(-0.25 * p["b_factor_A2_n"] * s2_nk)
    return (envelope_nk * (torch.sqrt(1 - w**2) * torch.sin(gamma_nk) - w * torch.cos(gamma_nk))).float()
