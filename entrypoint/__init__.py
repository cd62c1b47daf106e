"""What runs inside the image: PID 1, the start-up ladder, prefetch and the timeline.

Only the standard library is used here, and this directory is copied into images as source.  In an image the package is
called ``entrypoint`` (``/opt/warmimage/entrypoint``), on the workstation ``warmimage.entrypoint``: modules import each
other relatively, so both names work.
"""
