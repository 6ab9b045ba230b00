"""``gateway.json``, by which the command line finds the gateway that runs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stoker import __version__
from stoker.home import Home
from stoker.supervise import proctable

log = logging.getLogger("stoker.app")


@contextlib.contextmanager
def announced(home: Home, url: str, config_path: Path | None, certificate: Path | None = None) -> Iterator[None]:
    """``gateway.json`` stands while the gateway runs, so that the command line finds it. Blocks."""
    entry = proctable.read_entry(os.getpid()) if proctable.HAS_PROC else None
    about = {
        "pid": os.getpid(),
        "process_start": entry.started if entry else None,
        "url": url,
        "started_at": time.time(),
        "version": __version__,
        "argv": sys.argv,
        "config": str(config_path) if config_path else None,
        "certfile": str(certificate) if certificate else None,
    }
    unfinished = home.gateway.with_suffix(".new")
    try:
        unfinished.write_text(json.dumps(about))
        unfinished.replace(home.gateway)
    except OSError as error:
        what = "%s can't be written (%s): the command line finds this gateway only by STOKER_URL=%s"
        log.error(what, home.gateway, error.strerror, url)  # noqa: TRY400 - it says all there is to say
    try:
        yield
    finally:
        home.gateway.unlink(missing_ok=True)
