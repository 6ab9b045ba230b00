"""The options of running a gateway, which ``up`` and ``gateway start`` share."""

from __future__ import annotations

from pathlib import Path

import attrs
from cyclopts import Parameter

from stoker.cli.configured import find_settings, require_door
from stoker.cli.options import CertFile, ConfigFile, KeyFile, ListenAt, LogFormat, PluginPath, Strict
from stoker.config import with_certificate, with_log_format
from stoker.settings import Settings


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Serving:
    """Which gateway to run, and how."""

    config: ConfigFile = None
    listen: ListenAt = None
    certfile: CertFile = None
    keyfile: KeyFile = None
    plugin_path: PluginPath = ()
    strict: Strict = False
    log_format: LogFormat = None

    def find_settings(self) -> tuple[Path | None, Settings]:
        """The configuration's absolute path, if there is one, and the settings with what the options change in them.

        Raises ConfigError for what is wrong in either.
        """
        path, settings = find_settings(self.config, self.listen)
        return path, with_log_format(with_certificate(settings, self.certfile, self.keyfile), self.log_format)

    def require_door(self, path: Path | None, settings: Settings) -> None:
        """As :func:`~stoker.cli.configured.require_door`; the address came from an option, or else from ``path``."""
        require_door(settings, str(path) if self.listen is None else "--listen")

    def arguments(self, path: Path | None) -> list[str]:
        """The words that have ``up`` do so with the configuration ``path``, in whichever folder."""
        arguments = ["up"]
        named = {"--config": path, "--certfile": self.certfile, "--keyfile": self.keyfile}
        arguments += [word for flag, file in named.items() if file is not None for word in (flag, str(file.absolute()))]
        if self.listen is not None:
            arguments += ["--listen", self.listen]
        arguments += [word for place in self.plugin_path for word in ("--plugin-path", str(place.absolute()))]
        if self.strict:
            arguments.append("--strict")
        if self.log_format is not None:
            arguments += ["--log-format", self.log_format]
        return arguments


AS_CONFIGURED = Serving()
