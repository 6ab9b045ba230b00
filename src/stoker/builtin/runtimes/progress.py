"""What engines print while they start, and how far they are by it. The lines are those of the engines named."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from stoker.model import StartProgress

LOADING = "loading weights"
FETCHING = "fetching the model"
CAPTURING = "capturing CUDA graphs"
CACHE = "allocating the KV cache"
_BAR = r"\s*(?P<percent>\d{1,3})%(?: Completed)?\s*\|"  # tqdm's
_LOGGED = r"(?:\S+ [IWEDN] )?\s*(?:\w+ +)?"  # what llama.cpp puts before its words, since it has times there


@attrs.frozen
class Steps:
    """The steps of an engine's start, by patterns of lines, with ``percent`` or ``dots`` where they tell how far."""

    patterns: Sequence[tuple[re.Pattern[str], str]]

    def read(self, line: str) -> StartProgress | None:
        """What ``line`` tells."""
        for pattern, phase in self.patterns:
            if found := pattern.search(line):
                return StartProgress(phase, _fraction(found.groupdict()))
        return None

    def __or__(self, other: Steps) -> Steps:
        return Steps((*self.patterns, *other.patterns))


def _fraction(groups: dict[str, str | None]) -> float | None:
    if percent := groups.get("percent"):
        return min(int(percent), 100) / 100
    if dots := groups.get("dots"):
        return len(dots) / 100
    return None


def _steps(*patterns: tuple[str, str]) -> Steps:
    return Steps(tuple((re.compile(pattern), phase) for pattern, phase in patterns))


# huggingface_hub's, which most engines fetch models with
HUGGING_FACE = _steps(
    (rf"\bFetching \d+ files:{_BAR}", FETCHING),
    (rf"\bDownloading [^|:]{{1,80}}:{_BAR}", FETCHING),
    (rf"\.(?:safetensors|bin|gguf|pt|pth)\b[^|:]{{0,20}}:{_BAR}", FETCHING),
)
# vLLM 0.6 to 0.32
VLLM = (
    _steps(
        (rf"\bLoading \w+ checkpoint shards:{_BAR}", LOADING),
        (rf"\bCapturing CUDA graph[^|:]{{0,60}}:{_BAR}", CAPTURING),
        (r"\bStarting to load model ", LOADING),
        (r"\bCompiling a graph for |\bDynamo bytecode transform|'s torch\.compile\b", "compiling"),
        (r"\bLoading weights took |\bModel loading took ", "profiling"),
        (r"\bKV cache size: |\bAvailable KV cache memory: ", CACHE),
        (r"\bInitializing a V\d LLM engine ", "initializing the engine"),
        (r"\binit engine \(profile, create kv cache, warmup model\) took ", "opening the server"),
    )
    | HUGGING_FACE
)
# SGLang 0.4 and 0.5
SGLANG = (
    _steps(
        (rf"\bLoading \w+ checkpoint shards:{_BAR}", LOADING),
        (rf"\bCapturing batches[^|]{{0,60}}:{_BAR}", CAPTURING),
        (r"\bLoad weight begin\.", LOADING),
        (r"\bLoad weight end\.|\bKV Cache is allocated\.", CACHE),
        (r"\bCapture cuda graph begin\.", CAPTURING),
    )
    | HUGGING_FACE
)
# llama.cpp from b3000 on: a dot for each hundredth of the tensors, in one line
LLAMA_CPP = (
    _steps(
        (r"^(?P<dots>\.{2,100})$", LOADING),
        (rf"^{_LOGGED}load_tensors: loading model tensors|^{_LOGGED}load_model: loading model ", LOADING),
        (rf"^{_LOGGED}\w*download\w*: .*downloading |\bcurl_perform_with_retry: ", FETCHING),
        (r"\bllama_kv_cache\w*: |\bllama_context: constructing ", CACHE),
        (r"\bwarming up the model\b", "warming up"),
    )
    | HUGGING_FACE
)
ANY = VLLM | SGLANG | LLAMA_CPP
