"""The server of the page: a table of paths behind a session, and nothing else of this machine."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from reslite.serving.links import Links
from reslite.serving.results import Nonsense
from reslite.serving.site import Site
from runtime.errors import UserError

MOST_CONNECTIONS = 48
"""A browser holds six, and as many for each worker's downloads."""

SECONDS_OF_SILENCE = 20
"""After which a connection without a whole request is closed, so that the others get in."""

MOST_BYTES = 1 << 20
"""Of what a page posts; a measurement has some kilobytes."""

_COOKIE = "reslite"
_SECONDS_TO_STOP = 2

_HEADERS = {
    # The first three give the page threads in WebAssembly, and precise clocks.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing is loaded from elsewhere. The runtimes' bindings to WebAssembly are made by eval.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_UNREAD = {"Connection": "close"}  # so that the rest of a request is not read
_REFUSED = "Open the link that the terminal shows; each opens the page in one browser.\n"


def application(site: Site, links: Links, keep: Callable[[bytes], int]) -> Starlette:
    """Return the application.

    Args:
        site: What it serves.
        links: Who may use it.
        keep: Takes what a page measured; see ``reslite.serving.results.keeping``.
    """

    def is_known(request: Request) -> bool:
        return links.knows(request.cookies.get(f"{_COOKIE}-{request.url.port}", ""))

    async def home(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            return await item(request)
        session = links.open(token)
        if session is None:
            return PlainTextResponse(_REFUSED, 403)
        answer = RedirectResponse("./", 303)
        answer.set_cookie(
            f"{_COOKIE}-{request.url.port}",
            session,
            httponly=True,
            samesite="lax",  # the link may stand in a page of others, such as a web mail
            secure=request.url.scheme == "https",
        )
        return answer

    async def item(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_REFUSED, 403)
        path = request.path_params.get("path") or "index.html"
        found = site.get(path)
        if found is None:
            return PlainTextResponse("There is nothing here.\n", 404)
        kept = "max-age=31536000, immutable" if path.startswith("runtimes/") else "no-cache"
        headers = {"Cache-Control": f"private, {kept}"}
        if isinstance(found.content, Path):
            return FileResponse(found.content, headers=headers, media_type=found.kind)
        try:
            body = await run_in_threadpool(found.content)
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 409)
        return Response(body, headers=headers, media_type=found.kind)

    async def results(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_REFUSED, 403, headers=_UNREAD)
        body = await _body(request)
        if body is None:
            return PlainTextResponse(f"At most {MOST_BYTES:,} bytes.\n", 413, headers=_UNREAD)
        try:
            new = await run_in_threadpool(keep, body)
        except Nonsense as error:
            return PlainTextResponse(f"{error}\n", 400)
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 507)
        return PlainTextResponse(f"{new}\n", 201)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/results", results, methods=["POST"]),
            Route("/{path:path}", item),
        ],
        middleware=[Middleware(_Headers)],
    )


async def _body(request: Request) -> bytes | None:
    """Return the body of a request, or None if it is too large; reads no more than that."""
    parts, size = [], 0
    with suppress(ClientDisconnect):  # nobody will read the answer
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                return None
            parts.append(part)
    return b"".join(parts)


class _Headers:
    """Adds the headers of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), one.encode()) for name, one in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self._app(scope, receive, with_headers)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: If the port is in use or not allowed, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()  # the link may be of IPv4
        return socket.create_server(
            (host, port), family=family, backlog=MOST_CONNECTIONS, dualstack_ipv6=both
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use, perhaps by another 'reslite serve'; choose another: "
                f"--port {port + 1 if port < 65535 else 0}"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"port {port} is not allowed; choose one from 1024 on") from error
        raise UserError(f"{host}: not an address of this machine; choose another --host") from error


class _Refusing(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _protocol(*, server_state: ServerState, **others: Any) -> asyncio.Protocol:
    """Return uvicorn's protocol for one more connection, while there are not too many."""
    if len(server_state.connections) >= MOST_CONNECTIONS:
        return _Refusing()
    protocol = H11Protocol(server_state=server_state, **others)
    asyncio.get_running_loop().call_later(SECONDS_OF_SILENCE, _end_if_silent, protocol)
    return cast(asyncio.Protocol, protocol)


def _end_if_silent(protocol: H11Protocol) -> None:
    """Close a connection that has not asked for anything yet."""
    if protocol.cycle is None and protocol.transport is not None:
        protocol.transport.close()


def server_of(app: Starlette, https: Callable[[], SSLContext] | None = None) -> uvicorn.Server:
    """Return the server of an application, to be run on a socket.

    Args:
        app: The application.
        https: Makes the context of HTTPS; None for HTTP.
    """
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], _protocol),
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_SECONDS_TO_STOP,
        ssl_context_factory=None if https is None else lambda config, default: https(),
    )
    return uvicorn.Server(config)
