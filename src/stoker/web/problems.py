"""What went wrong with a request, as the answer its client gets: OpenAI's shape, never a traceback."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge, RequestTimeout

from stoker.core.codes import Code
from stoker.errors import ConfigError, ConflictError, NoSessionError, NotFoundError, StokerError, UpstreamError
from stoker.gateway.answers import Answer, error, shown
from stoker.gateway.paths import is_proxied
from stoker.store.database import StoreError

# The rest of the body is still on its way: nothing else can be asked on that connection.
_CLOSE = [(b"connection", b"close")]
_WHAT_THERE_IS = "clients' base URL ends in /v1, where /v1/models lists the models; /openapi.json lists every path"


class RequestError(Exception):
    """Ends a request with ``answer``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered with {answer.status}")
        self.answer = answer


def bad_request(message: str, param: str | None = None) -> RequestError:
    """The error of a request that is not as it should be. ``param`` names the part that is wrong."""
    return RequestError(error(Code.BAD_REQUEST, message, param=param))


def answer_to(problem: Exception, *, method: str, path: str, most_bytes: int) -> Answer | None:
    """The answer to a request that failed with ``problem``; None if that is nothing anybody expected.

    ``most_bytes`` is the limit of bodies, for the message about one that is larger.
    """
    match problem:
        case RequestError():
            return problem.answer
        case ConfigError():
            param = problem.mistakes[0].path or None if len(problem.mistakes) == 1 else None
            return error(Code.INVALID_CONFIGURATION, str(problem), param=param)
        case NoSessionError():
            return error(Code.SESSION_NOT_FOUND, str(problem), param="session_id")
        case NotFoundError():
            return error(Code.NOT_FOUND, str(problem))
        case ConflictError():
            return error(Code.CONFLICT, str(problem))
        case UpstreamError():
            return error(Code.ENGINE_FAILED, str(problem))
        case StoreError():
            return error(Code.STATE_UNAVAILABLE, str(problem))
        case StokerError():
            return error(Code.FAILED, str(problem))
        case HTTPException():
            return _answer_to_http(problem, method, path, most_bytes)
    return None


def _answer_to_http(problem: HTTPException, method: str, path: str, most_bytes: int) -> Answer:
    match problem:
        case NotFound() if is_proxied(path) and method != "POST":
            return _wrong_method(method, path, "POST")
        case NotFound():
            return error(Code.NOT_FOUND, f"there is nothing at {shown(path)}; {_WHAT_THERE_IS}")
        case MethodNotAllowed():
            return _wrong_method(method, path, ", ".join(sorted(problem.valid_methods or ())))
        case RequestEntityTooLarge():
            message = f"the body is larger than {most_bytes} bytes, the most that {shown(path)} takes"
            return error(Code.REQUEST_TOO_LARGE, message, headers=_CLOSE)
        case RequestTimeout():
            return error(Code.REQUEST_TIMEOUT, "the body did not arrive in time", headers=_CLOSE)
    return error(Code.REFUSED, problem.description or problem.name, status=problem.code or 500)


def _wrong_method(method: str, path: str, allowed: str) -> Answer:
    message = f"{shown(path)} does not take {shown(method)}; it takes {allowed}"
    return error(Code.METHOD_NOT_ALLOWED, message, headers=[(b"allow", allowed.encode())])
