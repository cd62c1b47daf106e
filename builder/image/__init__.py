"""An image as it is read back: its plan, its snapshot, the hosts that it fits."""
