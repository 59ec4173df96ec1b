"""Blocks that spaces are made of: the decisions of each, and how they lower to operators."""
