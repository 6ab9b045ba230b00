"""Compares routing policies on the simulated fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from stoker.contracts import RoutingPolicy
from stoker.testing.simulation import Conversation, Outcome, simulate
from stoker.testing.workloads import chats, crowd, documents, strangers

WORKLOADS: Mapping[str, Callable[[], Sequence[Conversation]]] = {
    "chats": chats,
    "documents": documents,
    "strangers": strangers,
    "crowd": crowd,
}

HEAD = """\
| workload | policy | cache hits | first token, mean | p99 | greatest load | beyond the guard |
| --- | --- | --: | --: | --: | --: | --: |"""


def compare(policies: Sequence[Callable[[], RoutingPolicy]]) -> str:
    """A Markdown table of how the policies do on each workload. Each is made anew for each."""
    return "\n".join([HEAD, *_rows(policies)])


def _rows(policies: Sequence[Callable[[], RoutingPolicy]]) -> Iterator[str]:
    for workload, make_conversations in WORKLOADS.items():
        conversations = make_conversations()
        for make_policy in policies:
            policy = make_policy()
            yield f"| {workload} | {policy.name} | {_cells(simulate(policy, conversations))} |"


def _cells(outcome: Outcome) -> str:
    return " | ".join(
        [
            f"{outcome.hit_rate:.0%}",
            f"{outcome.mean_first_token_seconds * 1000:.0f} ms",
            f"{outcome.p99_first_token_seconds * 1000:.0f} ms",
            f"{outcome.greatest_load:.2f}",
            f"{outcome.guard_exceeded}",
        ]
    )
