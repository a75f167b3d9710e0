"""E-steps, M-steps, and the loops that alternate them."""
