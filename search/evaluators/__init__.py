"""Ways to find a candidate's accuracy."""
