"""MnasNet's reinforcement learning."""
