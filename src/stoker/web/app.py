"""The Quart-Trio app: everything that is not proxied to an engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Blueprint, Response, current_app, g, request
from quart.ctx import RequestContext
from quart.typing import ResponseTypes
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection

from stoker.containing import told
from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error
from stoker.gateway.headers import RequestIds, find
from stoker.gateway.keyring import open_ring
from stoker.gateway.measures import Measures
from stoker.gateway.routing import RoutingTable
from stoker.model import NOTHING
from stoker.settings import GatewaySettings, SessionSettings
from stoker.store.archive import SessionArchive
from stoker.store.audit import AuditTrail
from stoker.web.allowing import Allowing
from stoker.web.audit import CLIENT_GONE, AuditEndpoint, Auditor
from stoker.web.control import Control, Operations
from stoker.web.doors import MANAGEMENT, MOST_BODY_BYTES, CalledRequest, require_caller
from stoker.web.engines import EngineEndpoints, ReadSpec
from stoker.web.extensions import Hook, add_routes
from stoker.web.guard import Guard
from stoker.web.health import HealthEndpoints
from stoker.web.keys import KeyDesk, KeyEndpoints
from stoker.web.management import ManagementEndpoints
from stoker.web.metrics import Listener, MetricsEndpoint
from stoker.web.openai import AnyText, ModelEndpoints
from stoker.web.openapi import OpenApiEndpoint
from stoker.web.problems import answer_to
from stoker.web.route import RouteEndpoints
from stoker.web.sessions import SessionEndpoints
from stoker.web.streams import OpenEnds
from stoker.web.wire import Wire, respond

log = logging.getLogger("stoker.web")

BODY_SECONDS = 30
KEEP_ALIVE_SECONDS = 15.0

_NOT_ITS_OWN = (trio.Cancelled, KeyboardInterrupt)  # what no handler has to answer for


class Connection(TrioASGIHTTPConnection):
    """One request. What Quart can't cope with, or may not see, is answered before Quart looks at it."""

    app: WebApp

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request."""
        refusal = self.app.guard(list(self.scope["headers"])) or self._put_path_right()
        if refusal is None:
            await super().__call__(receive, send)
        else:
            response = respond(refusal)
            response.headers["x-request-id"] = self.app.ids.of(find(self.scope["headers"], b"x-request-id")).decode()
            await self._send_response(send, response)

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: CalledRequest, receive: ASGIReceiveCallable
    ) -> None:
        """Bring the request its body, and end it when the client leaves.

        What comes of a body that is too large is left where it is: until it is refused, which may have to wait for the
        audit trail, Quart would read on.
        """
        most = request.most_body_bytes
        size = request.content_length or 0  # what it says of itself; then what there is
        if size <= most:
            size = 0
            while size <= most and (message := await receive())["type"] == "http.request":
                size += len(message["body"])
                request.body.append(message["body"])
                if not message["more_body"]:
                    request.body.set_complete()
        if size > most:
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()

    def _put_path_right(self) -> Answer | None:
        """A request target may be a whole URL, or nonsense such as ``?a``, at which Quart fails."""
        path = self.scope["path"]
        if not path.startswith("/"):
            try:
                path = urlsplit(path).path
            except ValueError:
                path = ""
        if not path.startswith("/"):
            return error(Code.BAD_REQUEST, "the target of a request must begin with '/'")
        self.scope["path"] = path
        return None


class NoWebsocket(TrioASGIWebsocketConnection):
    """Refuses a websocket: there are none here."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Refuse it, as soon as it asks."""
        await receive()
        await send({"type": "websocket.close", "code": 1000, "reason": None})


class WebApp(QuartTrio):
    """Quart-Trio, behind the guard."""

    asgi_http_class = Connection
    asgi_websocket_class = NoWebsocket
    request_class = CalledRequest

    def __init__(self, guard: Guard, measures: Measures, auditor: Auditor) -> None:
        super().__init__("stoker.web", static_folder=None, template_folder=None)
        self.guard = guard
        self.measures = measures
        self.auditor = auditor
        self.open_ends = OpenEnds()
        self.plugins: dict[str, str] = {}
        self.ids = RequestIds()
        self.url_map.converters["any_text"] = AnyText
        # A redirect to a tidier spelling would leave our shape of errors, and turn a POST into a surprise.
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        self.config.update(
            RESPONSE_TIMEOUT=None,  # logs and events are followed for as long as somebody listens
            BODY_TIMEOUT=BODY_SECONDS,
            MAX_CONTENT_LENGTH=MOST_BODY_BYTES,
            PROPAGATE_EXCEPTIONS=False,
        )
        self.json.sort_keys = False  # type: ignore[attr-defined]
        self.register_error_handler(Exception, answer_failure)
        self.before_request(remember_request_id)
        self.after_request(finish)

    async def handle_request(self, request: CalledRequest) -> Response:  # type: ignore[override]
        """Answer the request, and leave a trace of what it changed, also where its client has left."""
        status = CLIENT_GONE
        try:
            response = await super().handle_request(request)
            status = response.status_code
            return response  # type: ignore[return-value]  # werkzeug's own come from nobody here
        finally:
            with trio.CancelScope(shield=True):
                await self.auditor.note(request, status)

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> ResponseTypes:
        """As Quart does it. What a handler raises to end the program (``sys.exit``) only fails the request."""
        try:
            return await super().full_dispatch_request(request_context)
        except (Exception, *_NOT_ITS_OWN):
            raise
        except BaseException as error:  # the connection boundary: contained, logged, counted
            if isinstance(error, BaseExceptionGroup) and error.subgroup(_NOT_ITS_OWN):
                raise
            failure = RuntimeError(f"a handler would have ended Stoker: {told(error)}")
            failure.__cause__ = error
            return await self.finalize_request(await self.handle_user_exception(failure), request_context)

    def add_routes_of(self, hook: Hook) -> None:
        """Add the endpoints of a plugin. Raises PluginError that says why none of them were."""
        self.plugins.update(dict.fromkeys(add_routes(self, hook), hook.plugin))

    def end_streams(self) -> None:
        """End the answers that have no end of their own (events, logs that are followed), before a shutdown."""
        self.open_ends.end()


def create_app(
    control: Control,
    operations: Operations,
    *,
    desk: KeyDesk,
    started_at: float,
    table: RoutingTable,
    measures: Measures,
    settings: GatewaySettings,
    read_spec: ReadSpec,
    spec_schema: Mapping[str, Any] = NOTHING,
    sessions: SessionSettings | None = None,
    listeners: Sequence[Listener] = (),
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
) -> WebApp:
    """The app, complete. ``started_at`` is in seconds since the Unix epoch; ``read_spec`` turns JSON into a spec, and
    ``spec_schema`` is the JSON Schema of what it takes.

    Whoever has a key of ``desk``'s ring, or is its admin, may come in. Without ``sessions`` there are none.
    """
    wire = Wire()
    trail = AuditTrail(desk.database)
    guard = Guard.of(settings.listen, settings.allowed_hosts)
    app = WebApp(guard, measures, Auditor(trail, desk.ring))
    app.before_request(require_caller(desk.ring))

    open_to_all = Blueprint("open", "stoker.web")
    HealthEndpoints(control, operations, wire).add_to(open_to_all)
    MetricsEndpoint(control, table, measures, settings, listeners, desk.ring.refusals).add_to(open_to_all)
    OpenApiEndpoint(spec_schema, wire).add_to(open_to_all)
    app.register_blueprint(open_to_all)

    openai = Blueprint("openai", "stoker.web")
    ModelEndpoints(control, table, wire).add_to(openai)
    app.register_blueprint(openai)

    if sessions is not None and sessions.enabled:
        conversations = Blueprint("sessions", "stoker.web")
        SessionEndpoints(SessionArchive(desk.database), desk.ring, sessions, wire).add_to(conversations)
        app.register_blueprint(conversations)

    management = Blueprint("management", "stoker.web", url_prefix=MANAGEMENT)
    EngineEndpoints(control, wire, app.open_ends, read_spec, Allowing.of(settings)).add_to(management)
    ManagementEndpoints(
        control, operations, table, wire, app.open_ends, settings, started_at, keep_alive_seconds
    ).add_to(management)
    RouteEndpoints(control, table, wire).add_to(management)
    KeyEndpoints(desk, wire).add_to(management)
    AuditEndpoint(trail, wire).add_to(management)
    app.register_blueprint(management)
    return app


def skeleton() -> WebApp:
    """An app with all the endpoints and nothing behind them: for looking at, and for seeing what could be added."""
    nothing: Any = None
    return create_app(
        nothing,
        nothing,
        desk=KeyDesk(None, open_ring()),
        started_at=0.0,
        table=nothing,
        measures=nothing,
        settings=GatewaySettings(),
        read_spec=nothing,
        sessions=SessionSettings(),
    )


# What happens before and after every request. All of it is async: Quart runs plain functions in threads.


async def remember_request_id() -> None:
    """Keep the id of this request, the client's or a new one."""
    ids: RequestIds = current_app.ids  # type: ignore[attr-defined]
    g.request_id = ids.of(find(request.scope["headers"], b"x-request-id")).decode()
    request.request_id = g.request_id  # type: ignore[attr-defined]


async def finish(response: Response) -> Response:
    """Give every answer what all of them have."""
    response.headers["x-request-id"] = g.request_id
    response.headers["x-content-type-options"] = "nosniff"
    response.headers.setdefault("cache-control", "no-store")
    if request.method == "HEAD" and not isinstance(response.response, DataBody):
        response.response = DataBody(b"")  # else a stream that nobody is shown would run on
    return response


async def answer_failure(failure: Exception) -> Response:
    """The answer to a request that failed. One that failed for no known reason is our own defect: logged, contained."""
    method, path = request.method, request.path
    most_bytes = request.most_body_bytes  # type: ignore[attr-defined]  # of the app's own class of requests
    answer = answer_to(failure, method=method, path=path, most_bytes=most_bytes)
    if answer is None:
        current_app.measures.contained_failures += 1  # type: ignore[attr-defined]
        plugin = current_app.plugins.get(request.blueprint or "")  # type: ignore[attr-defined]
        whose = f" (plugin {plugin!r})" if plugin else ""
        about = {"request_id": g.request_id}
        log.error("request %s failed: %s %s%s", g.request_id, method, path, whose, exc_info=failure, extra=about)
        message = f"Stoker failed to answer; its log says more under the request id {g.request_id}"
        answer = error(Code.INTERNAL_ERROR, message)
    return respond(answer)
