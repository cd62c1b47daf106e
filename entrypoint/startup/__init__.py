"""A start in the order in which it happens, as PID 1 runs it."""
