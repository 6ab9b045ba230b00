"""An engine without a model: a real process that answers like vLLM, and fails in every way engines do.

``python -m stoker.testing.fake_engine --port 9000 --model tiny`` serves chat and completions (or, with ``--kind
embedding``, embeddings), ``/v1/models``, ``/health`` and ``/metrics``. Its answers repeat the words of the prompt, so a
test can tell whose answer it holds. :class:`~stoker.testing.fake_engine.faults.Faults` lists what can go wrong: as
flags (``--die-after-chunks 3``), or while it runs.

| path | what |
| --- | --- |
| ``GET /fake/state`` | pid, children, requests so far, active, cancelled by their clients, the faults |
| ``GET /fake/requests`` | the last requests: method, target, headers, body (base64, up to 1 MiB), its SHA-256 |
| ``POST /fake/faults`` | change faults: a JSON object; what it does not name stays as it is |
| ``DELETE /fake/faults`` | no more faults (so does SIGUSR1, where the engine refuses connections) |

Faults of requests never touch ``/fake/``; they touch ``/health`` only where their name says so.
"""
