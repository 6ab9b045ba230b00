"""A random Llama of 90,000 parameters with a tokenizer of single characters, and a LoRA adapter for it.

Written with the standard library alone, in the formats of Hugging Face: the engines that load it bring the rest. What
it says is noise.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HIDDEN, HEAD, HEADS, INNER, LAYERS, VOCABULARY, POSITIONS = 64, 32, 2, 128, 2, 128, 65536
ADAPTER_RANK = 4
SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
# How a byte-level tokenizer writes printable ASCII, a space and a newline.
CHARACTERS = (*map(chr, range(33, 127)), "\u0120", "\u010a")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

Shape = Sequence[int]


def write_model(folder: Path) -> Path:
    """Write the model into ``folder``, and return that."""
    folder.mkdir(parents=True)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **ends,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "chat_template": TEMPLATE,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)
    write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "tokenizer.json", _tokenizer())
    write_tensors(folder / "model.safetensors", _weights())
    return folder


def write_adapter(folder: Path) -> Path:
    """Write a LoRA adapter for the model into ``folder``, and return that."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": ADAPTER_RANK,
        "lora_alpha": 2 * ADAPTER_RANK,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "tiny",
        "bias": "none",
    }
    shapes: dict[str, Shape] = {}
    for layer in range(LAYERS):
        for name, width in (("q_proj", HEADS * HEAD), ("v_proj", HEAD)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            shapes[f"{place}.lora_A.weight"] = (ADAPTER_RANK, HIDDEN)
            shapes[f"{place}.lora_B.weight"] = (width, ADAPTER_RANK)
    write_json(folder / "adapter_config.json", config)
    write_tensors(folder / "adapter_model.safetensors", shapes)
    return folder


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path``."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tensors(path: Path, shapes: Mapping[str, Shape]) -> None:
    """A safetensors file (a length, a JSON table of that length, then the numbers) of small random numbers."""
    chance = random.Random(0)
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    numbers = array("f")
    for name, shape in shapes.items():
        begin = len(numbers)
        is_norm = "norm" in name
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers.extend(1.0 if is_norm else chance.gauss(0, 0.02) for _ in range(size))
        offsets = [begin * numbers.itemsize, len(numbers) * numbers.itemsize]
        table[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
    head = json.dumps(table).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + numbers.tobytes())


def _weights() -> Mapping[str, Shape]:
    shapes: dict[str, Shape] = {
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (HIDDEN,),
                "post_attention_layernorm": (HIDDEN,),
                "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
                "self_attn.k_proj": (HEAD, HIDDEN),
                "self_attn.v_proj": (HEAD, HIDDEN),
                "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
                "mlp.gate_proj": (INNER, HIDDEN),
                "mlp.up_proj": (INNER, HIDDEN),
                "mlp.down_proj": (HIDDEN, INNER),
            }.items()
        }
    return shapes


def _tokenizer() -> Mapping[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags, "special": True} for i, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": bytewise,
        "post_processor": None,
        "decoder": bytewise,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: i for i, text in enumerate((*SPECIAL, *CHARACTERS))},
            "merges": [],
        },
    }
