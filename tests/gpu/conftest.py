"""The driver that these tests, and the end-to-end ones, are run with."""

from __future__ import annotations

from .driver import driver, library

__all__ = ["driver", "library"]
