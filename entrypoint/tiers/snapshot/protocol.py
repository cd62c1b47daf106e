"""What PID 1 and the process that it restores agree on; PID 1 imports nothing else of that process's modules."""

#: The variable that takes the container's own ``LD_PRELOAD`` past the restorer, which is started by it.
OWN_PRELOAD = "WARMIMAGE_LD_PRELOAD"

#: What the restored process reports to PID 1 when Python runs.
RESTORED = b"+"
