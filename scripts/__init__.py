"""What a user types: the `hwnas` command and the benchmarks."""
