"""What engines print while they start, taken from their logs, and what Stoker makes of it."""

from __future__ import annotations

import pytest

from stoker.builtin.runtimes import Command, LlamaCpp, Sglang, Vllm, VllmCpu
from stoker.contracts import Narrating
from stoker.model import StartProgress

VLLM = [
    ("(EngineCore pid=20799) INFO 11-28 03:58:23 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with",
     "initializing the engine", None),
    ("(Worker pid=20910) INFO 11-28 03:58:41 [cpu_model_runner.py:68] Starting to load model /tiny...",
     "loading weights", None),
    ("Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]", "loading weights", 0.0),
    ("Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 97.49it/s]", "loading weights", 1.0),
    ("Loading pt checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 97.49it/s]", "loading weights", 0.5),
    ("(Worker pid=20910) INFO 11-28 03:58:41 [default_loader.py:501] Loading weights took 0.01 seconds",
     "profiling", None),
    ("(EngineCore pid=20799) INFO 11-28 03:58:42 [kv_cache_utils.py:2327] CPU KV cache size: 4,194,304 tokens, Maximum",
     "allocating the KV cache", None),
    ("INFO 06-10 11:00:00 [gpu_worker.py:276] Available KV cache memory: 60.71 GiB", "allocating the KV cache", None),
    ("INFO 06-10 11:00:00 [backends.py:430] Using cache directory: /cache/rank_0_0 for vLLM's torch.compile",
     "compiling", None),
    ("INFO 06-10 11:00:00 [backends.py:441] Dynamo bytecode transform time: 3.41 s", "compiling", None),
    ("Capturing CUDA graph shapes:  40%|####      | 27/67 [00:09<00:14,  2.8it/s]", "capturing CUDA graphs", 0.4),
    ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  84%|████████▎ | 56/67 [00:09<00:01,  7.9it/s]",
     "capturing CUDA graphs", 0.84),
    ("(EngineCore pid=7) INFO 11-28 03:58:45 [core.py:402] init engine (profile, create kv cache, warmup model) took 3",
     "opening the server", None),
    ("model-00001-of-00004.safetensors:  40%|████      | 1.99G/4.98G [00:20<00:30, 98.2MB/s]",
     "fetching the model", 0.4),
    ("Fetching 4 files:  25%|██▌       | 1/4 [00:20<01:00, 20.1s/it]", "fetching the model", 0.25),
]  # fmt: skip
LLAMA_CPP = [
    ("0.00.004.326 I srv    load_model: loading model '/models/SmolLM2-135M.gguf'", "loading weights", None),
    ("load_tensors: loading model tensors, this can take a while... (mmap = true)", "loading weights", None),
    (".........................", "loading weights", 0.25),
    ("." * 100, "loading weights", 1.0),
    ("llama_kv_cache_unified:        CPU KV buffer size =    90.00 MiB", "allocating the KV cache", None),
    ("common_init_from_params: warming up the model with an empty run - please wait ...", "warming up", None),
    ("common_download_file_single_online: trying to download model, downloading from https://hf.co/m.gguf to /x.gguf",
     "fetching the model", None),
]  # fmt: skip
SGLANG = [
    ("Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.0s/it]", "loading weights", 0.25),
    ("[2026-06-10 11:00:00] Load weight begin. avail mem=78.50 GB", "loading weights", None),
    ("[2026-06-10 11:00:00] KV Cache is allocated. #tokens: 100, K size: 1 GB", "allocating the KV cache", None),
    ("Capturing batches (bs=160 avail_mem=8.10 GB):   4%|▍         | 1/23 [00:00<00:14,  1.5it/s]",
     "capturing CUDA graphs", 0.04),
]  # fmt: skip
NOTHING = [
    "",
    ".",
    "--- stoker: chat, incarnation 1: python -m vllm.entrypoints.openai.api_server --model /tiny",
    "(APIServer pid=20709) WARNING 11-28 03:58:07 [vllm.py:1703] Enforce eager set, disabling torch.compile",
    '(APIServer pid=1) INFO:     127.0.0.1:3 - "GET /health HTTP/1.1" 200 OK',
    "0.00.003.554 I cmn  common_param: common_params_print_info: verbosity = 3 (adjust with the `-lv N` CLI arg)",
    "the disk is 40% full | really",
]
CASES: list[tuple[Narrating, str, str, float | None]] = [
    *((Vllm(), *case) for case in VLLM),
    *((VllmCpu(), *case) for case in VLLM[:3]),
    *((LlamaCpp(), *case) for case in LLAMA_CPP),
    *((Sglang(), *case) for case in SGLANG),
    *((Command(), *case) for case in (*VLLM, *LLAMA_CPP, *SGLANG)),
]


@pytest.mark.parametrize(("runtime", "line", "phase", "fraction"), CASES)
def test_lines_that_tell_how_far_a_start_is(runtime: Narrating, line: str, phase: str, fraction: float | None) -> None:
    assert runtime.start_progress(line) == StartProgress(phase, fraction)


@pytest.mark.parametrize("line", NOTHING)
@pytest.mark.parametrize("runtime", [Vllm(), LlamaCpp(), Sglang(), Command()], ids=lambda each: each.name)
def test_lines_that_do_not(runtime: Narrating, line: str) -> None:
    assert runtime.start_progress(line) is None
