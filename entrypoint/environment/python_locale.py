"""The locale that an interpreter begins with in an environment (PEP 538 and PEP 540), and how to change to it."""

from __future__ import annotations

import ctypes
import locale
import os
import sys
from collections.abc import Mapping

#: The variables that decide on the locale, the strongest first.
CHARACTERS = ("LC_ALL", "LC_CTYPE", "LANG")

#: All variables of the C library's locale that name a category.
VARIABLES = (
    *CHARACTERS,
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
)

#: The locales that PEP 538 puts in the place of ``C``, in its order.
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")

#: ``LC_CTYPE_MASK`` and ``CODESET`` of glibc; musl has the same.
_CTYPE_MASK, _CODESET = 1, 14


def conflict(before: Mapping[str, str], after: Mapping[str, str], utf8_mode: int) -> str | None:
    """Return why an interpreter cannot go on in another environment; its text encoding is fixed.

    Args:
        before: the environment that it was started with.
        after: the other environment.
        utf8_mode: ``sys.flags.utf8_mode``, which an interpreter that is started in the locale ``C`` switches on.

    Returns:
        The reason; ``None`` where it can go on.
    """
    old, new = (charset(variables) for variables in (before, after))
    if (old or "utf8") != (new or "utf8"):
        return f"its text encoding is {new or 'utf8'}, and the modules were imported with {old or 'utf8'}"
    if not new and after.get("LC_ALL") and not utf8_mode:
        return "it means Python's UTF-8 mode, which is off"
    return None


def charset(variables: Mapping[str, str]) -> str:
    """Return the character set of an environment's locale, in lower case without dashes.

    The C library is asked about the locale without changing this process's own.

    Args:
        variables: the environment.

    Returns:
        An empty string for the locale ``C`` and for one that does not exist: there an interpreter takes UTF-8.
    """
    name = next(filter(None, (variables.get(name) for name in CHARACTERS)), "C")
    libc = ctypes.CDLL(None)
    libc.newlocale.restype = ctypes.c_void_p
    libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    libc.nl_langinfo_l.restype = ctypes.c_char_p
    libc.nl_langinfo_l.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.freelocale.argtypes = [ctypes.c_void_p]
    made = None if name in ("C", "POSIX") else libc.newlocale(_CTYPE_MASK, os.fsencode(name), None)
    if not made:
        return ""
    try:
        return os.fsdecode(libc.nl_langinfo_l(_CODESET, made)).lower().replace("-", "")
    finally:
        libc.freelocale(made)


def apply() -> None:
    """Set this process's locale, and how its standard streams take bytes that are no text, by ``os.environ``.

    The steps are those of an interpreter's start: ``LC_CTYPE`` by the environment; where that is ``C``, the coercion of
    PEP 538, which alone sets every other category too.
    """
    locale.setlocale(locale.LC_ALL, "C")
    _set(locale.LC_CTYPE, "")
    coerce = os.environ.get("PYTHONCOERCECLOCALE") != "0" and not os.environ.get("LC_ALL")
    if coerce and locale.setlocale(locale.LC_CTYPE) == "C":
        target = next((name for name in _COERCED if _set(locale.LC_CTYPE, name)), "")
        if target:
            os.environ["LC_CTYPE"] = target
            _set(locale.LC_ALL, "")
            _set(locale.LC_CTYPE, "")
    if os.environ.get("PYTHONIOENCODING"):
        return
    lenient = locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX", *_COERCED)
    for stream in (sys.__stdin__, sys.__stdout__):  # standard error escapes in every locale
        if stream is not None:
            stream.reconfigure(errors="surrogateescape" if lenient else "strict")


def _set(category: int, name: str) -> bool:
    try:
        locale.setlocale(category, name)
    except locale.Error:
        return False
    return True
