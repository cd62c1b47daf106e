"""Build container images for GPU model servers that start sooner, without changing the server."""

from importlib.metadata import version

__version__ = version("warmimage")
