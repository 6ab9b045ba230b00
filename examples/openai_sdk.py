"""The OpenAI SDK, pointed at the gateway: a chat, a stream, embeddings.

Start `stoker demo` beside it, and `pip install openai`. Any program that speaks to OpenAI is pointed here in the same
way: by its base URL, or by the variable OPENAI_BASE_URL.
"""

from __future__ import annotations

import os

from openai import OpenAI

CHAT, EMBEDDING = "smollm2", "all-minilm-l6-v2"


def main() -> None:
    """Ask in three ways."""
    url = os.environ.get("STOKER_URL", "http://127.0.0.1:8000")
    with OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("STOKER_API_KEY", "none-needed")) as client:
        print("Models:", ", ".join(sorted(model.id for model in client.models.list())))
        answer = client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=24
        )
        print("Chat:", answer.choices[0].message.content)
        print("Stream:", end=" ")
        stream = client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Count to five."}], max_tokens=24, stream=True
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                print(chunk.choices[0].delta.content, end="", flush=True)
        print()
        vectors = client.embeddings.create(model=EMBEDDING, input=["a cat", "a dog"]).data
        print("Embeddings:", len(vectors), "of", len(vectors[0].embedding), "numbers")


if __name__ == "__main__":
    main()
