"""Measuring kits: bundles that measure a board without hwnas, and what comes back from it."""
