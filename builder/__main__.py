"""``python -m warmimage`` is the ``warmimage`` command."""

from .cli import main

if __name__ == "__main__":
    main()
