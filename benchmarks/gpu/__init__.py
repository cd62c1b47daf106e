"""Starts on a real GPU, measured: ``python -m benchmarks.gpu --help``.

There need be no Docker: what an image would hold is laid out on this machine, in the very folders of an image, and each
start runs in PID and mount namespaces of its own, as a container's first process would.
"""
