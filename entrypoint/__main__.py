"""An image's ENTRYPOINT: ``python -I -S /opt/warmimage/entrypoint [ENGINE ARGUMENT]...``."""

import sys

if not __package__:
    # Run as a folder, Python puts the folder itself on sys.path and knows no package: give the modules theirs.
    sys.path[0] = sys.path[0].rstrip("/").rpartition("/")[0] or "/"
    __package__, __spec__ = "entrypoint", None  # Python 3.12 and later warn when the two disagree

from .main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
