"""``WARMIMAGE_TRACE=imports``: every Python process of the engine writes its imports to the timeline.

This directory is put in front of the engine's ``PYTHONPATH``, so the interpreter runs its ``sitecustomize.py``.
Without the variable nothing is changed, not by a byte.
"""
