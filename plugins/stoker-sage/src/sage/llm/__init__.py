"""The client of the SAGE gateway: Stoker's own, by the name that it has there.

>>> from sage.llm import UnifiedInferenceClient
>>> client = UnifiedInferenceClient.create(control_plane_url="http://localhost:8000/v1")
>>> client.close()
"""

from __future__ import annotations

from stoker.client import AsyncUnifiedInferenceClient, ClientError, InferenceResult, UnifiedInferenceClient

__all__ = ["AsyncUnifiedInferenceClient", "ClientError", "InferenceResult", "UnifiedInferenceClient"]
