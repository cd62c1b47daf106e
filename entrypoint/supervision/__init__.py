"""Processes below PID 1: their start, signals, readiness and end."""
