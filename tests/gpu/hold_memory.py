"""``hold_memory.py BYTES COMMAND…``: takes memory of the GPUs in CUDA_VISIBLE_DEVICES, as the stub driver has them, and
becomes COMMAND.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    for gpu in Path(os.environ["NVML_STUB"]).glob("gpu*"):
        if (gpu / "uuid").read_text() in visible:
            (gpu / "compute").mkdir(exist_ok=True)
            unfinished = gpu / "compute" / ".new"
            unfinished.write_text(sys.argv[1])
            unfinished.replace(gpu / "compute" / str(os.getpid()))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
