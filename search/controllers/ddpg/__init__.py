"""HAQ's agent, which decides a network layer by layer."""
