"""A runtime: Hugging Face's text-embeddings-inference, whose server is called text-embeddings-router."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Sequence

from stoker.contracts import EngineRuntime
from stoker.errors import PermanentLaunchError
from stoker.hookspecs import hookimpl
from stoker.model import EngineLoad, EngineSpec, Gpu, LaunchPlan, Placement

SERVER = "text-embeddings-router"


class TextEmbeddingsInference:
    """Embedding engines. The server is found on PATH: there is no environment that Stoker could install."""

    name = "tei"
    environment = None

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """It embeds, and does nothing else that Stoker passes on."""
        return [] if spec.kind == "embedding" else [f'runtime "tei" serves kind = "embedding", not {spec.kind!r}']

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The server's command. Raises :class:`PermanentLaunchError` where the server is not installed."""
        server = shutil.which(SERVER)
        if server is None:
            raise PermanentLaunchError(f"there is no {SERVER} on PATH; install text-embeddings-inference")
        listen = ("--hostname", placement.host, "--port", str(port))
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(placement.gpus)} if placement.gpus else {}
        return LaunchPlan(
            argv=(server, "--model-id", spec.model, "--served-model-name", spec.model, *listen, *spec.args),
            env={**spec.env, **gpus},
            cwd=spec.cwd,
            base_url=f"http://{placement.host}:{port}",
            metrics_path="/metrics",
            names=(spec.model,),
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """OpenAI's path for embeddings."""
        return frozenset({"/v1/embeddings"})

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Not from the name of a model."""
        return None

    def scrape(self, text: str) -> EngineLoad:
        """The length of its queue, and the requests it has answered so far."""
        numbers: defaultdict[str, float] = defaultdict(float)  # one name has a line for each of its labels
        for name, value in re.findall(r"^(te_\w+)(?:\{.*\})? (\d+(?:\.\d+)?)$", text, re.MULTILINE):
            numbers[name] += float(value)
        return EngineLoad(waiting=numbers["te_queue_size"], progress=numbers["te_request_success"])


@hookimpl
def stoker_register_runtimes() -> Sequence[EngineRuntime]:
    """The one runtime of this plugin."""
    return [TextEmbeddingsInference()]
