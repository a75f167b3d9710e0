"""Fourier samples, slices, CTFs, rotations, noise, masks, FSC."""
