"""How a run of Stoker ends that should not."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import pytest
import trio

from stoker import app
from stoker.home import Home
from stoker.plugins import build_registry, builtin
from stoker.settings import GatewaySettings, Settings
from stoker.supervise.supervisor import Supervisor


@pytest.mark.parametrize("serving", [True, False])
def test_an_error_of_the_system_tells_where_it_is_if_it_ends_a_gateway_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, serving: bool
) -> None:
    """A gateway once ended with nothing but a line, as if a disk were full, and nobody could say what it had met."""
    ready = trio.Event()

    async def fail(_: Supervisor) -> None:
        if serving:
            await ready.wait()
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(Supervisor, "run_timer", fail)
    monkeypatch.setattr(app, "allow_many_descriptors", lambda: None)  # it would be those of the tests
    settings = Settings(gateway=GatewaySettings(listen="127.0.0.1:0"))
    with pytest.raises(OSError, match="not connected"):
        app.run(settings, Home(tmp_path), build_registry(builtin()), on_ready=lambda _: ready.set())
    gc.unfreeze()
    told = [record.exc_info for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(told) == serving
    assert all(exc_info is not None for exc_info in told)
