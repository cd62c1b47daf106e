"""Tier ``snapshot``: the interpreter with everything imported is captured at build time, and mapped back at start.

``capture`` runs in a build step, starts ``captured_process`` in the engine's interpreter, and keeps what that writes:
``memory_file`` copies a stopped process into one file, ``manifest`` says what it was captured from and where it may be
restored, ``integrity`` has checksums of both.  At a start ``tier`` compares, and executes the restorer of ``native``.
"""
