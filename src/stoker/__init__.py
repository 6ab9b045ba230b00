"""Stoker keeps inference engines running and puts one OpenAI-compatible address in front of them.

``UnifiedInferenceClient`` and ``AsyncUnifiedInferenceClient`` can be imported from here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker.client import AsyncUnifiedInferenceClient, UnifiedInferenceClient

__version__ = "0.1.0"
__all__ = ["AsyncUnifiedInferenceClient", "UnifiedInferenceClient", "__version__"]


def __getattr__(name: str) -> object:
    """The clients are imported when they are asked for: the command line begins sooner without them."""
    if name in ("AsyncUnifiedInferenceClient", "UnifiedInferenceClient"):
        from stoker import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
