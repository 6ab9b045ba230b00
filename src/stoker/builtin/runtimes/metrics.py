"""Reads the metrics pages of engines: Prometheus' text format, as far as an :class:`EngineLoad` needs it."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from stoker.model import EngineLoad


@attrs.frozen(kw_only=True)
class Gauges:
    """Which metrics of an engine family say what. Of several names (old and new ones) all that are there count."""

    running: Sequence[str]
    waiting: Sequence[str]
    kv_cache: Sequence[str]
    progress: Sequence[str]

    def read(self, text: str) -> EngineLoad:
        """The load that ``text`` tells of. What isn't there, or can't be read, is left out."""
        found: dict[str, list[float]] = defaultdict(list)
        for name, value in samples(text):
            found[name].append(value)
        cache = _values(found, self.kv_cache)
        return EngineLoad(
            running=_sum(_values(found, self.running)),
            waiting=_sum(_values(found, self.waiting)),
            kv_cache_used=min(1.0, max(0.0, *cache)) if cache else None,
            progress=_sum(_values(found, self.progress)),
        )


VLLM = Gauges(
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_cache=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    # The iteration counter moves within a long prefill too, where the others wait for its end.
    progress=("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:iteration_tokens_total_sum"),
)

LLAMA_CPP = Gauges(
    running=("llamacpp:requests_processing",),
    waiting=("llamacpp:requests_deferred",),
    kv_cache=("llamacpp:kv_cache_usage_ratio",),
    progress=("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", "llamacpp:n_decode_total"),
)

SGLANG = Gauges(
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs",),
    kv_cache=("sglang:token_usage",),
    progress=("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
)

KNOWN = (VLLM, LLAMA_CPP, SGLANG)

ANY = Gauges(
    running=[name for each in KNOWN for name in each.running],
    waiting=[name for each in KNOWN for name in each.waiting],
    kv_cache=[name for each in KNOWN for name in each.kv_cache],
    progress=[name for each in KNOWN for name in each.progress],
)


def samples(text: str) -> Iterator[tuple[str, float]]:
    """Name and value of every sample with a finite value. Labels and timestamps are passed over, so is all else."""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            _, _, rest = rest.rpartition("}")
        else:
            name, _, rest = line.partition(" ")
        words = rest.split()
        if not words:
            continue
        try:
            value = float(words[0])
        except ValueError:
            continue
        if math.isfinite(value):
            yield name.strip(), value


def _values(found: Mapping[str, Sequence[float]], names: Iterable[str]) -> list[float]:
    return [value for name in names for value in found.get(name, ())]


def _sum(values: Iterable[float]) -> float:
    """What they come to; never less than nothing, and never more than a number can be."""
    return min(max(0.0, sum(values)), sys.float_info.max)
