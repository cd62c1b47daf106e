"""Interfaces of the kernel and of its drivers."""
