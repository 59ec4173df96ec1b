"""Shared weights: one network that holds all networks of a space, for training them together and for mixing them."""
