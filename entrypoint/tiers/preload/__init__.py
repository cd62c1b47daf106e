"""Tier ``preload``: the engine's native libraries load while its first imports run."""
