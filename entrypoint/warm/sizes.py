"""Amounts of bytes: as people and charts write them, and as they are said again."""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "Pi": 1 << 50,
    "Ei": 1 << 60,
}

#: A Kubernetes quantity without its sign and without thousandths, of which there are none of a byte.
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([kMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII)

_LARGEST = 1 << 60


def parse(text: str) -> int:
    """Return the bytes that an integer or a Kubernetes quantity (``20Gi``, ``1.5G``, ``2e10``) stands for.

    Raises:
        ValueError: it is none, or not between 1 byte and 1 EiB.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if not found:
        raise ValueError("no amount of bytes")
    number, suffix, exponent = found.groups()
    size = int(Fraction(number if number[-1] != "." else number[:-1]) * _SUFFIXES[suffix or ""] * power(exponent))
    if not 0 < size <= _LARGEST:
        raise ValueError("more than 1 EiB" if size else "not even one byte")
    return size


def power(exponent: str | None) -> Fraction:
    """Return ten to the power of an exponent, 1 where there is none."""
    return Fraction(10) ** int(exponent) if exponent else Fraction(1)


def format_binary(size: float) -> str:
    """Return bytes as a person reads them, in the binary units of memory limits."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
