"""Keeps asking while one of two engines is killed: every question is answered, and the engine comes back.

Start `stoker up -c examples/two_replicas/stoker.toml` beside it, on this machine.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from stoker import UnifiedInferenceClient
from stoker.model import EngineState

MODEL, QUESTIONS, ASKERS = "smollm2", 40, 4


def ask(client: UnifiedInferenceClient, number: int) -> str:
    """One question. Returns the engine that answered; raises if none did."""
    result = client.chat(f"What is {number} plus one?", max_tokens=8, return_result=True)
    return str(result.engine)


def kill_one(client: UnifiedInferenceClient) -> str:
    """End the process of one engine, as a machine short of memory would."""
    ready = {engine.pid: engine.engine_id for engine in client.engines() if engine.state is EngineState.READY}
    pid = next(pid for pid in ready if pid is not None)
    os.kill(pid, signal.SIGKILL)
    return ready[pid]


def main() -> None:
    """Ask, kill, and wait until both are there again."""
    with UnifiedInferenceClient.create(default_model=MODEL) as client, ThreadPoolExecutor(ASKERS) as pool:
        answers = []
        for number in range(QUESTIONS):
            answers.append(pool.submit(ask, client, number))
            if number == QUESTIONS // 4:
                answers[0].result()
                print("killed:", kill_one(client))
        print("answered:", dict(Counter(answer.result() for answer in answers)))
        while sum(engine.state is EngineState.READY for engine in client.engines()) < 2:
            time.sleep(0.2)
        print("both are READY again")


if __name__ == "__main__":
    main()
