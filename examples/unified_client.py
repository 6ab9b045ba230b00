"""Stoker's own client: less to write, errors by type, and engines besides.

Start `stoker demo` beside it.
"""

from __future__ import annotations

from stoker import UnifiedInferenceClient
from stoker.client import ModelNotFound

CHAT, EMBEDDING = "smollm2", "all-minilm-l6-v2"


def main() -> None:
    """Ask, look at the engines, and meet an error."""
    with UnifiedInferenceClient.create(default_model=CHAT, default_embedding_model=EMBEDDING) as client:
        print("Chat:", client.chat("What is the capital of France?", max_tokens=24, temperature=0))
        result = client.chat("Say hello.", max_tokens=8, return_result=True)
        print(f"{result.engine} needed {result.latency_seconds:.2f} s; tokens: {result.usage}")
        print("Embeddings:", [len(vector) for vector in client.embed(["a cat", "a dog"])])
        for engine in client.engines():
            print(engine.engine_id, "is", engine.state.value)
        try:
            client.chat("Hello?", model="no-such-model")
        except ModelNotFound as error:
            print("ModelNotFound:", error)


if __name__ == "__main__":
    main()
