"""The paths that are proxied to engines. Everything else is the web app's."""

from __future__ import annotations

EXACT = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/rerank",
        "/v1/score",
        "/classify",
        "/pooling",
        "/tokenize",
        "/detokenize",
    }
)
FOLDERS = ("/v1/audio/", "/v1/images/")


def is_proxied(path: str) -> bool:
    """Whether a POST to ``path`` goes to an engine (one that serves it, of the model it asks for)."""
    return path in EXACT or path.startswith(FOLDERS)
