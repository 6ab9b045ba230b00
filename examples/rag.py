"""Answers from your own texts, with nothing but this machine: embeddings find the text, a chat model words the answer.

Start `stoker demo` beside it. Then: python examples/rag.py [QUESTION]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from stoker import UnifiedInferenceClient

CHAT, EMBEDDING = "smollm2", "all-minilm-l6-v2"
TEXTS = (
    "The library is open from nine to five, and closed on Mondays.",
    "Books can be kept for four weeks. After that each day costs ten cents.",
    "The reading room on the second floor has desks with power outlets.",
    "Dogs have to wait outside, where there is a bowl of water.",
)


class Shelf:
    """Texts, and the direction in which each of them points."""

    def __init__(self, client: UnifiedInferenceClient, texts: Sequence[str]) -> None:
        self._client = client
        self._texts = texts
        self._vectors = client.embed(list(texts))

    def nearest(self, question: str, count: int = 2) -> list[str]:
        """The texts that are most like the question, the most alike first."""
        [wanted] = self._client.embed([question])
        likeness = [_cosine(wanted, vector) for vector in self._vectors]
        order = sorted(range(len(self._texts)), key=likeness.__getitem__, reverse=True)
        return [self._texts[at] for at in order[:count]]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def main(question: str) -> None:
    """Find, then answer."""
    with UnifiedInferenceClient.create(default_model=CHAT, default_embedding_model=EMBEDDING) as client:
        found = Shelf(client, TEXTS).nearest(question)
        print("Found:", *found, sep="\n  ")
        system = "Answer the question in one sentence, from this text alone: " + " ".join(found)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        print("Answer:", end=" ")
        for piece in client.chat(messages, stream=True, max_tokens=48, temperature=0):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "For how long may I keep a book?")
