"""What a spec that comes over HTTP may hold. A token can be stolen: it must not be a shell, nor a way into networks.

Whoever may start engines is an admin, and may pass them any arguments; there is no shell that could see those.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import attrs
import trio

from stoker.core.addresses import HostRules
from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, listed
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings
from stoker.web.problems import RequestError

RESOLVE_SECONDS = 5.0
# By these a program is made to load, or to run, something else than itself.
_STEERING = ("BASH_ENV", "BROWSER", "ENV", "GCONV_PATH", "IFS", "NODE_OPTIONS", "PATH", "PERL5OPT", "SHELLOPTS")
_STEERING_PREFIXES = ("DYLD_", "LD_", "PYTHON")


@attrs.frozen
class Allowing:
    """The limits, as ``[gateway]`` sets them."""

    settings: GatewaySettings
    hosts: HostRules

    @classmethod
    def of(cls, settings: GatewaySettings) -> Allowing:
        """Those of ``settings``."""
        return cls(settings, HostRules.of(settings.register_hosts))

    async def check(self, spec: EngineSpec) -> None:
        """Raises RequestError (403) for what may not come this way. Looks hosts up, in a thread."""
        if not self.settings.allow_commands_over_http and (refusal := _refuse_commands(spec)):
            raise RequestError(refusal)
        if spec.api_key_env is not None:
            self._check_variable(spec.api_key_env)
        if spec.url is not None:
            await self._check_url(spec.url)

    def _check_variable(self, name: str) -> None:
        """It may be the key itself, so it is not repeated."""
        allowed = self.settings.api_key_variables
        if not any(fnmatchcase(name, each) for each in allowed):
            message = (
                "over HTTP api_key_env may not name just any variable of the gateway, or a stolen token could send its "
                f"secrets anywhere; it may name: {listed(allowed)}; give the key such a name, add "
                "its name to api_key_variables of [gateway] in stoker.toml, or give the engine an [[engine]] there"
            )
            raise RequestError(error(Code.API_KEY_VARIABLE_NOT_ALLOWED, message, param="api_key_env"))

    async def _check_url(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        complaint = self.hosts.complaint(host, await _addresses(host))
        if complaint is not None:
            raise RequestError(error(Code.ENGINE_HOST_NOT_ALLOWED, complaint, param="url"))


def _refuse_commands(spec: EngineSpec) -> Answer | None:
    remedy = "write it into stoker.toml, or set allow_commands_over_http = true in its [gateway]"
    if spec.command or spec.runtime == "command":
        message = f"commands can't be started over HTTP, or a stolen token would be a shell; {remedy}"
        return error(Code.COMMANDS_NOT_ALLOWED, message, param="command")
    if steering := list(_steering(spec)):
        message = f"{listed(steering)} can make an engine run anything, and so can't be set over HTTP; {remedy}"
        return error(Code.COMMANDS_NOT_ALLOWED, message, param="env")
    return None


def _steering(spec: EngineSpec) -> Iterator[str]:
    for name in spec.env:
        if name in _STEERING or name.startswith(_STEERING_PREFIXES):
            yield name


async def _addresses(host: str) -> list[str]:
    """All that ``host`` means now; none where that can't be found out in time."""
    with trio.move_on_after(RESOLVE_SECONDS):
        try:
            found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: a name that IDNA can't write
            return []
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return []
