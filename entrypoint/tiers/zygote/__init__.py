"""Tier ``zygote``: the engine's processes are forked from a fork server that has imported the closure."""
