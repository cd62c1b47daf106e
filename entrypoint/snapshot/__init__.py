"""Tier ``snapshot``: the interpreter with everything imported is captured at build time, and restored at start.

``capture`` runs in a container of the built image and calls ``point`` in the engine's interpreter, which imports and
stops.  ``criu`` dumps and restores it, ``manifest`` says where it may be restored, and at a start the restored process
and PID 1 find each other by ``meeting``.
"""
