"""What engines serve: request paths by kind, and the smallest request that proves that one computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from stoker.model import EngineSpec, TokenProbe

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
SCORE = "/v1/score"
CLASSIFY = "/classify"
POOLING = "/pooling"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
SPEECH = "/v1/audio/speech"

TOKENS = frozenset({"/tokenize", "/detokenize"})
GENERATE = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES}) | TOKENS
IMAGES = frozenset({"/v1/images/generations", "/v1/images/edits", "/v1/images/variations"})

ANY_PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "llm": GENERATE,
        "embedding": frozenset({EMBEDDINGS}) | TOKENS,
        "rerank": frozenset({RERANK, SCORE}) | TOKENS,
        "score": frozenset({RERANK, SCORE}) | TOKENS,
        "classify": frozenset({CLASSIFY}) | TOKENS,
        "audio": frozenset({TRANSCRIPTIONS, TRANSLATIONS, SPEECH}),
        "image": IMAGES,
    }
)


def paths_of_any(kind: str) -> frozenset[str]:
    """What an engine nobody knows better may serve, by its kind. An unknown kind may serve everything."""
    return ANY_PATHS.get(kind) or frozenset().union(*ANY_PATHS.values())


def token_probe(spec: EngineSpec, names: Sequence[str] = ()) -> TokenProbe | None:
    """One token, or one vector; None for kinds without a small request.

    ``names`` are those the engine knows, where they may be others than the spec's.
    """
    name = names[0] if names else spec.model
    bodies: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "llm": (COMPLETIONS, {"model": name, "prompt": "1", "max_tokens": 1, "temperature": 0}),
        "embedding": (EMBEDDINGS, {"model": name, "input": "1"}),
        "rerank": (RERANK, {"model": name, "query": "1", "documents": ["1"]}),
        "score": (RERANK, {"model": name, "query": "1", "documents": ["1"]}),
        "classify": (CLASSIFY, {"model": name, "input": "1"}),
    }
    if spec.kind not in bodies:
        return None
    path, body = bodies[spec.kind]
    return TokenProbe(path=path, body=body)
