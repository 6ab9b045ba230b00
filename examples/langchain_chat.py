"""LangChain, pointed at the gateway: a prompt, a model and a parser in one chain.

Start `stoker demo` beside it, and `pip install langchain-openai`.
"""

from __future__ import annotations

import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr


def main() -> None:
    """Run the chain, as a stream, and embed a text."""
    url = os.environ.get("STOKER_URL", "http://127.0.0.1:8000") + "/v1"
    key = SecretStr(os.environ.get("STOKER_API_KEY", "none-needed"))
    prompt = ChatPromptTemplate.from_messages([("system", "You answer in one sentence."), ("user", "{question}")])
    chain = (
        prompt | ChatOpenAI(model="smollm2", base_url=url, api_key=key, max_completion_tokens=24) | StrOutputParser()
    )
    print("Chain:", end=" ")
    for piece in chain.stream({"question": "What is the capital of France?"}):
        print(piece, end="", flush=True)
    print()
    # Without check_embedding_ctx_length=False it would send numbers of OpenAI's own tokenizer instead of text.
    embeddings = OpenAIEmbeddings(model="all-minilm-l6-v2", base_url=url, api_key=key, check_embedding_ctx_length=False)
    print("Embedding:", len(embeddings.embed_query("a cat")), "numbers")


if __name__ == "__main__":
    main()
