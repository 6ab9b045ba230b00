"""What can go wrong for a client, by type.

::

    ClientError                 everything below; ``status``, ``code``, ``param``, ``request_id``, ``engine``
    ├── GatewayUnreachable      nobody answers at the gateway's address
    ├── Timeout                 no answer in time
    ├── BadRequest              the request itself is wrong; sending it again won't help (400, 405, 413, 422, …)
    ├── AuthenticationFailed    no key, or one that is not valid (401)
    ├── PermissionDenied        the key may not do that (403)
    ├── ModelNotFound           nobody serves a model of that name, or not for this (404)
    ├── EngineNotFound          there is no engine of that id (404)
    ├── Conflict                it contradicts what is there already (409)
    ├── RateLimited             too many requests (429); ``retry_after_seconds``
    ├── EngineUnavailable       no engine can take it now, or it failed (502, 503, 504); ``retry_after_seconds``
    ├── EngineFailed            an engine could not do what was asked (any other 5xx)
    ├── StreamInterrupted       a stream ended before its answer did
    └── UnexpectedAnswer        what answers does not speak as Stoker and its engines do
"""

from __future__ import annotations

from stoker.errors import ConflictError, NotFoundError, NotRunningError, StokerError


class ClientError(StokerError):
    """A call of a client failed. The message says what happened, to what, and what to do.

    ``status`` is the answer's HTTP status, None where there was no answer. ``code`` and ``param`` are OpenAI's, as the
    gateway or the engine gave them. ``request_id`` finds the request in the gateway's log. ``engine`` is the id of the
    engine that answered.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        engine: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.engine = engine


class GatewayUnreachable(ClientError, NotRunningError):
    """Nobody answers at the gateway's address, or what does breaks off."""


class Timeout(ClientError):
    """No answer came in time, or no next event of a stream did."""


class BadRequest(ClientError):
    """The request is wrong, and would be as wrong the next time."""


class AuthenticationFailed(ClientError):
    """The gateway wants a key, and got none, or one that it does not know, or that was revoked or has expired."""


class PermissionDenied(ClientError):
    """The key may not do that, or not with this model."""


class ModelNotFound(ClientError, NotFoundError):
    """Nobody serves a model of that name, or none of its engines does what was asked."""


class EngineNotFound(ClientError, NotFoundError):
    """There is no engine of that id."""


class Conflict(ClientError, ConflictError):
    """The call contradicts what is there already: an id that is taken, an engine that runs."""


class _Later(ClientError):
    retry_after_seconds: float | None = None
    """After how many seconds the gateway thinks that another try is worth it; None where it does not say."""


class RateLimited(_Later):
    """The key has no more requests now, or too many wait already. ``retry_after_seconds`` says when to come again."""


class EngineUnavailable(_Later):
    """No engine of the model could take the request, or those that took it failed. ``retry_after_seconds`` as above."""


class EngineFailed(ClientError):
    """An engine, or the gateway, could not do what was asked of it."""


class StreamInterrupted(ClientError):
    """A stream ended before its answer did: the pieces that came are all there is."""


class UnexpectedAnswer(ClientError):
    """What answers there is neither a Stoker gateway nor an OpenAI-compatible engine, or not one of today."""
