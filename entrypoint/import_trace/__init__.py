"""``WARMIMAGE_TRACE=imports``: every Python process of the engine writes its imports to the timeline.

This folder is put in front of the engine's ``PYTHONPATH``, and the interpreter runs its ``sitecustomize.py`` by itself.
Without the variable nothing is changed, not by a byte.
"""
