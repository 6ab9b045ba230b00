"""What can be done with the client: chat, a conversation, embeddings, and the three together.

It needs a gateway with a chat engine and an embedding engine:

    sage gateway start
    sage llm engine start Qwen/Qwen2.5-0.5B-Instruct
    sage llm engine start BAAI/bge-m3 --engine-kind embedding
"""

from __future__ import annotations

import math

from sage.llm import ClientError, UnifiedInferenceClient

GATEWAY = "http://localhost:8000/v1"
FACTS = (
    "The gateway gives all engines one address.",
    "An engine that fails is started again.",
    "Bread is made of flour, water and salt.",
)


def similarity(one: list[float], other: list[float]) -> float:
    """The cosine of the angle between two vectors: 1 where they point the same way."""
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def chat(client: UnifiedInferenceClient) -> None:
    """One question, one answer."""
    print("Chat:", client.chat([{"role": "user", "content": "Say hello."}], max_tokens=16, temperature=0))


def converse(client: UnifiedInferenceClient) -> None:
    """A second question that builds on the first answer."""
    messages = [{"role": "user", "content": "Name a colour."}]
    messages.append({"role": "assistant", "content": client.chat(messages, max_tokens=16, temperature=0)})
    messages.append({"role": "user", "content": "Name another one."})
    print("Conversation:", client.chat(messages, max_tokens=16, temperature=0))


def stream(client: UnifiedInferenceClient) -> None:
    """An answer as it comes."""
    print("Stream:", end=" ")
    for piece in client.chat("Count to three.", stream=True, max_tokens=16, temperature=0):
        print(piece, end="", flush=True)
    print()


def embed(client: UnifiedInferenceClient) -> None:
    """Texts as vectors, and how near they are to each other."""
    vectors = client.embed(list(FACTS))
    print(f"Embeddings: {len(vectors)} of {len(vectors[0])} numbers")
    print(f"  the first two are {similarity(vectors[0], vectors[1]):.2f} alike,")
    print(f"  the first and the last {similarity(vectors[0], vectors[2]):.2f}")


def look_up_and_answer(client: UnifiedInferenceClient) -> None:
    """The fact that is nearest to a question, and an answer from it."""
    question = "What happens to an engine that fails?"
    wanted = client.embed([question])[0]
    fact = max(FACTS, key=lambda each: similarity(wanted, client.embed([each])[0]))
    print("Found:", fact)
    system = {"role": "system", "content": f"Answer from this: {fact}"}
    result = client.chat([system, {"role": "user", "content": question}], max_tokens=24, return_result=True)
    print(f"Answer of {result.model}:", result.content)


def fail() -> None:
    """A gateway that is not there."""
    try:
        with UnifiedInferenceClient.create(control_plane_url="http://localhost:9/v1") as client:
            client.chat("Hello?")
    except ClientError as error:
        print(f"{type(error).__name__}, as it should be: {error}")


def main() -> None:
    """All of it."""
    with UnifiedInferenceClient.create(control_plane_url=GATEWAY) as client:
        chat(client)
        converse(client)
        stream(client)
        embed(client)
        look_up_and_answer(client)
    fail()


if __name__ == "__main__":
    main()
