"""The proxies: how each is found, started as cheaply as it goes, and what it says it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .building import PACKAGES, build_stoker
from .machine import ROOT, BenchError, free_port
from .running import Running, answer, answers, running

STOKER = "stoker"
BASELINE = "vllm-router"
START_SECONDS = 120
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()

NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 256k;
    keepalive_requests 1000000000;
    keepalive_timeout 3600;
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 2048;
        keepalive_requests 1000000000;
        keepalive_timeout 3600;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_read_timeout 600;
        }}
    }}
}}
"""

LITELLM = """\
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      api_base: http://127.0.0.1:{engine}/v1
      api_key: unused
  - model_name: e
    litellm_params:
      model: openai/e
      api_base: http://127.0.0.1:{engine}/v1
      api_key: unused
"""

STOKER_CONFIGURATION = """\
[gateway]
listen = "127.0.0.1:{port}"

[[engine]]
model = "m"
runtime = "remote"
url = "http://127.0.0.1:{engine}"

[[engine]]
model = "e"
kind = "embedding"
runtime = "remote"
url = "http://127.0.0.1:{engine}"
"""


@dataclass(frozen=True)
class Proxy:
    """One that can be started. ``{port}``, ``{other}`` (a second port), ``{engine}`` and ``{folder}`` in its command
    and in its configuration are filled in."""

    name: str
    version: str
    command: Sequence[str]
    configuration: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    rewrites_answers: bool = False
    """It decodes the answers and makes new ones: they can't be compared byte by byte."""

    @contextlib.contextmanager
    def started(self, engine: int, cpu: int, folder: Path) -> Iterator[Running]:
        """Run it in front of the engine on port ``engine``; it answers, and is warm enough to have answered."""
        own = folder / self.name
        own.mkdir()
        port = free_port()
        values = {"port": port, "other": free_port(), "engine": engine, "folder": own, "user": _nginx_user()}
        (own / "configuration").write_text(self.configuration.format(**values))
        command = [part.format(**values) for part in self.command]
        environ = {name: value.format(**values) for name, value in self.environ.items()}
        with running(self.name, command, environ, port, cpu, own) as process:
            process.wait_until(lambda: answers(port, "/v1/chat/completions", CHAT), START_SECONDS)
            yield process


def _nginx_user() -> str:
    return "user root;" if os.geteuid() == 0 else ""


@dataclass(frozen=True)
class Places:
    """Where programs are looked for: environments, each as ``DIR/bin`` or ``DIR/NAME/bin``, then PATH."""

    environments: Sequence[Path]

    def find(self, name: str) -> Path | None:
        """The program, or None."""
        for environment in self.environments:
            for folder in (environment / "bin", environment / name / "bin"):
                if (folder / name).exists():
                    return (folder / name).absolute()
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        return Path(found) if found else None


def find_proxies(places: Places) -> tuple[list[Proxy], list[str]]:
    """Those of the others that are installed; and, for those that aren't, what to do."""
    found, missing = [], []
    for name, make in {
        "nginx": nginx,
        BASELINE: vllm_router,
        "sglang-router": sglang_router,
        "litellm": litellm,
    }.items():
        program = places.find(name)
        if program:
            found.append(make(program))
        else:
            remedy = "run with --install" if name in PACKAGES else "Debian, Ubuntu: apt install nginx-light"
            missing.append(f"{name} is not installed ({remedy})")
    return found, missing


def nginx(program: Path) -> Proxy:
    """One worker, connections to the engine kept, nothing buffered."""
    said = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=True).stderr
    command = [str(program), "-p", "{folder}", "-c", "{folder}/configuration"]
    return Proxy("nginx", said.rpartition("/")[2].strip(), command, NGINX)


def vllm_router(program: Path) -> Proxy:
    """Round robin instead of the cache-aware policy, no log of requests."""
    command = [str(program), *_router_arguments()]
    return Proxy(BASELINE, distribution_version(program), command)


def sglang_router(program: Path) -> Proxy:
    """As vllm-router, from which it differs little on the outside."""
    command = [str(program), "launch", *_router_arguments()]
    return Proxy("sglang-router", distribution_version(program), command)


def _router_arguments() -> list[str]:
    address = ["--host", "127.0.0.1", "--port", "{port}", "--worker-urls", "http://127.0.0.1:{engine}"]
    return [*address, "--policy", "round_robin", "--prometheus-port", "{other}", "--log-level", "error"]


def litellm(program: Path) -> Proxy:
    """One worker, no key, and the list of prices it has rather than the one it would fetch."""
    command = [str(program), "--config", "{folder}/configuration", "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--keepalive_timeout", "3600"]  # it would close the idle connections
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # for local development, as its name for it is
    }
    return Proxy("litellm", distribution_version(program), command, LITELLM, environ, rewrites_answers=True)


def distribution_version(program: Path) -> str:
    """The version of the distribution that a script belongs to."""
    code = f"import importlib.metadata as m; print(m.version({program.name!r}))"
    done = subprocess.run([str(program.parent / "python"), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown version"


def stoker(python: str, file: str | None, *, from_source: bool) -> Proxy:
    """The built file, a given one, or the sources below ``src`` with what ``python`` has installed."""
    environ = {"STOKER_HOME": "{folder}/home"}
    if from_source:
        program = [python, "-m", "stoker"]
        environ["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT / "src", *ROOT.glob("plugins/*/src")]))
    else:
        path = Path(file).absolute() if file else build_stoker()
        program = [python, str(path)] if path.suffix == ".pyz" else [str(path)]
    done = subprocess.run(
        [*program, "--version"], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(program)} --version failed:\n{done.stdout}{done.stderr}")
    command = [*program, "up", "-c", "{folder}/configuration"]
    return Proxy(STOKER, done.stdout.strip().rpartition(" ")[2], command, STOKER_CONFIGURATION, environ)


def about_stoker(process: Running) -> str:
    """What ``stoker status`` says about the lanes and the parser."""
    token = (process.log.parent / "home" / "admin-token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    status, body = answer(process.port, "GET", "/v1/management/status", headers=headers)
    if status != 200:
        raise BenchError(f"stoker's status page answered {status}: {body.decode(errors='replace')}")
    told = json.loads(body)
    parts = [(name, told[name]) for name in told if name.startswith(("lane", "parser", "body_reader"))]
    return "; ".join(f"{name.replace('_', ' ')}: {_in_words(value)}" for name, value in parts) or "not told"


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)


def python_version(python: str) -> str:
    """Of the Python that runs Stoker."""
    if python == sys.executable:
        return ".".join(map(str, sys.version_info[:3]))
    done = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("Python ")
