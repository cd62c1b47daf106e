"""Bench: starts of an image measured side by side, in turn, with the page cache warm or cold."""
