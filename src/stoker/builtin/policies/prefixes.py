"""What engines have probably cached: an approximate prefix tree, laid flat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixMemory:
    """Remembers which engine was sent which prefixes.

    A prompt is cut into blocks of ``block_bytes``, as engines cut theirs. The hash of a block goes on from that of the
    block before it, so one number stands for a whole prefix, and the numbers of a prompt for a path in a tree. All that
    is kept is a table of (engine, prefix) pairs, each as one number, in the order of their last use. The oldest are
    forgotten when there are more than ``remembered_blocks``. The end of a path counts as older than its beginning, so
    what is remembered of an engine is always whole paths from the root.
    """

    def __init__(self, block_bytes: int, prompt_bytes: int, remembered_blocks: int) -> None:
        self._block = block_bytes
        self._prompt = prompt_bytes
        self._remembered = remembered_blocks
        self._pairs: OrderedDict[int, None] = OrderedDict()
        self._marks = 0

    def __len__(self) -> int:
        return len(self._pairs)

    def new_mark(self) -> int:
        """A number that stands for an engine of which nothing is remembered yet."""
        self._marks += 1
        return hash(("engine", self._marks))

    def path(self, model: str, prompt: bytes) -> Sequence[int]:
        """A number for each prefix of whole blocks, of ``prompt_bytes`` at most.

        It begins with the model's name, as adapters of one engine do not share their caches.
        """
        block, path = self._block, []
        prefix = hash(model)
        for start in range(0, min(len(prompt), self._prompt) - block + 1, block):
            prefix = hash((prefix, prompt[start : start + block]))
            path.append(prefix)
        return path

    def matched(self, mark: int, path: Sequence[int]) -> int:
        """How many blocks of ``path`` the engine was sent before, from the first one on."""
        pairs = self._pairs
        known, unknown = 0, len(path) + 1
        while unknown - known > 1:  # whole paths are remembered, so the end of one can be searched by halves
            middle = (known + unknown) // 2
            if path[middle - 1] ^ mark in pairs:
                known = middle
            else:
                unknown = middle
        return known

    def remember(self, mark: int, path: Sequence[int]) -> None:
        """The engine is sent a prompt with this path now."""
        pairs = self._pairs
        for prefix in reversed(path):
            pair = prefix ^ mark
            pairs[pair] = None
            pairs.move_to_end(pair)
        while len(pairs) > self._remembered:
            pairs.popitem(last=False)
