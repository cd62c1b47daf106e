"""Programs that measure or stress real images; each runs from the repository as ``python -m benchmarks.NAME``."""
