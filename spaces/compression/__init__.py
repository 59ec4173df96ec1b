"""Compression as arithmetic on tensors: which channels matter, thinner factors, ranges, and weights that are shared."""
