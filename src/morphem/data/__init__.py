"""Particles and pixels, joined into whitened batches; and their simulation."""
