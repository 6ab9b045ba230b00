"""Which GPUs the environment lets us have: CUDA_VISIBLE_DEVICES, as CUDA itself would read it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Visible:
    """A value of CUDA_VISIBLE_DEVICES. Numbers are those of ``nvidia-smi`` (CUDA_DEVICE_ORDER=PCI_BUS_ID)."""

    text: str | None = None
    numbers: frozenset[int] = frozenset()
    uuids: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Visible:
        """None allows every GPU, an empty text none. As for CUDA, -1 ends the list; other nonsense is passed over."""
        numbers: set[int] = set()
        uuids: list[str] = []
        for word in map(str.strip, (text or "").split(",")):
            if word == "-1":
                break
            if word.isdecimal():
                numbers.add(int(word))
            elif word.startswith(("GPU-", "MIG-")):
                uuids.append(word)
        return cls(text, frozenset(numbers), tuple(uuids))

    def allows(self, index: int, uuid: str) -> bool:
        """Whether a GPU is in the list, by its number or by the beginning of its UUID."""
        return self.text is None or index in self.numbers or uuid.startswith(self.uuids)

    def may_allow(self, index: int) -> bool:
        """Whether a GPU that could not be asked for its UUID may be in the list."""
        return self.text is None or index in self.numbers or bool(self.uuids)
