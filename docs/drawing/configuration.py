"""The settings of ``stoker.toml``."""

from __future__ import annotations

from functools import partial

from drawing.marks import Parts
from stoker.config.schema import reference
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings

PARTS: Parts = {
    "settings": partial(reference, Settings),
    "gateway": partial(reference, GatewaySettings),
    "sessions": partial(reference, SessionSettings),
    "engine": partial(reference, EngineSpec),
    "runtime": partial(reference, RuntimeSettings),
}
