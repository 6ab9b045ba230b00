"""Clients for programs: :class:`UnifiedInferenceClient`, and :class:`AsyncUnifiedInferenceClient` to be awaited.

One core decides (``asking``, ``managing``, ``directory``): each call is a generator that yields what is to be done and
is sent what came of it. Two shells carry that out, one in the thread that calls and one on an event loop.
"""

from stoker.client.asynchronous import AsyncUnifiedInferenceClient
from stoker.client.errors import (
    AuthenticationFailed,
    BadRequest,
    ClientError,
    Conflict,
    EngineFailed,
    EngineNotFound,
    EngineUnavailable,
    GatewayUnreachable,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    StreamInterrupted,
    Timeout,
    UnexpectedAnswer,
)
from stoker.client.records import InferenceResult, StreamChunk, Usage
from stoker.client.streams import AsyncTextStream, TextStream
from stoker.client.sync import UnifiedInferenceClient

__all__ = [
    "AsyncTextStream",
    "AsyncUnifiedInferenceClient",
    "AuthenticationFailed",
    "BadRequest",
    "ClientError",
    "Conflict",
    "EngineFailed",
    "EngineNotFound",
    "EngineUnavailable",
    "GatewayUnreachable",
    "InferenceResult",
    "ModelNotFound",
    "PermissionDenied",
    "RateLimited",
    "StreamChunk",
    "StreamInterrupted",
    "TextStream",
    "Timeout",
    "UnexpectedAnswer",
    "UnifiedInferenceClient",
    "Usage",
]
