"""The HTTP application: routes, limits on what is read, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import metier
from metier.serving.answering import Answering
from metier.serving.door import Door, Visit
from metier.serving.exchange import Exchange, refusal
from metier.serving.labelling import TextLabelling
from metier.serving.released import Executed
from metier.serving.service import CHAT, CLASSIFY, SPANS, Service
from metier.serving.wire import ChatRequest, LabelRequest, Refused, parse_chat, parse_labels

__all__ = ["build_app"]

_BEARER = Security(HTTPBearer(auto_error=False, description="A key made with: metier keys new"))
_KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 422: "invalid_value"}


def build_app(service: Service) -> Door:
    """Return the server as an ASGI application. Its engine starts and ends with the application's lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.finish(max(1.0, service.settings.grace))

    app = FastAPI(
        title="Metier",
        version=metier.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    _add_errors(app)
    _add_status(app, service)
    _add_models(app, service)
    _add_chat(app, service)
    _add_labels(app, service)
    _describe(app)
    return Door(app, service)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        kind = _KINDS.get(error.status_code, "invalid_request")
        response = refusal(Refused(error.status_code, "there is nothing here" if error.status_code == 404 else str(error.detail), code=kind))
        response.headers.update({name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"})
        return response

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        return refusal(Refused(422, "the request's path or query is not valid", code=_KINDS[422]))

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return refusal(error)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return refusal(Refused(500, "the server failed on this request", "server_error", code="internal_error"))


def _add_status(app: FastAPI, service: Service) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether the process runs.")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="Whether questions are answered (503 if not).")
    async def ready() -> Response:
        return JSONResponse({"status": "ok"}) if service.alive else JSONResponse({"status": "no"}, 503)

    @app.get("/metrics", dependencies=[_BEARER], summary="Counters in Prometheus' form; needs a key with the scope metrics.")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_models(app: FastAPI, service: Service) -> None:
    def card(item: Executed, longest: int) -> dict[str, Any]:
        about = {"release": item.release, "adapter": item.adapter, "base": item.base, "route": service.route_of(item.name)}
        return {
            "id": item.name,
            "object": "model",
            "created": service.began,
            "owned_by": "metier",
            "parent": item.base,
            "max_model_len": longest,
            "metier": about,
        }

    @app.get("/v1/models", dependencies=[_BEARER], summary="The releases that are served.")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card(item, longest) for item, longest in service.loaded]})

    @app.get("/v1/models/{name}", dependencies=[_BEARER], summary="One release.")
    async def model(name: str) -> Response:
        item = service.find(name, service.route_of(name))
        return JSONResponse(next(card(*found) for found in service.loaded if found[0] == item))


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what the description says of a request's body; the body itself is read by hand, for the limits."""
    schema = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}


def _add_labels(app: FastAPI, service: Service) -> None:
    async def labelled(request: Request, route: str) -> Response:
        asked = parse_labels(await _read(request, service), most_texts=service.settings.max_messages)
        visit: Visit = request.scope["metier"]
        work = TextLabelling(service, asked, route=route, name=visit.name, key=visit.key.name if visit.key else "-")
        return JSONResponse(await work.answer(), headers={"cache-control": "no-store"})

    @app.post(CLASSIFY, dependencies=[_BEARER], summary="Labels or numbers of texts, by a release.", openapi_extra=_body(LabelRequest))
    async def classify(request: Request) -> Response:
        return await labelled(request, CLASSIFY)

    @app.post(SPANS, dependencies=[_BEARER], summary="Typed spans in texts, by a release.", openapi_extra=_body(LabelRequest))
    async def spans(request: Request) -> Response:
        return await labelled(request, SPANS)


def _add_chat(app: FastAPI, service: Service) -> None:
    @app.post(CHAT, dependencies=[_BEARER], summary="An answer of a release.", openapi_extra=_body(ChatRequest))
    async def chat(request: Request) -> Response:
        asked = parse_chat(await _read(request, service), most_messages=service.settings.max_messages)
        visit: Visit = request.scope["metier"]
        return Exchange(service, Answering(service, asked, name=visit.name, key=visit.key.name if visit.key else "-"), asked)


async def _read(request: Request, service: Service) -> bytes:
    """Return a request's body. Raises Refused for another type than JSON, too many bytes (counted while they come) or too slow a client."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send the body as application/json", code="unsupported_media_type")
    most = service.settings.max_body_bytes
    too_large = Refused(413, f"the body is larger than {most} bytes", code="too_large")
    too_large.headers["connection"] = "close"
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > most:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(service.settings.read_timeout):
            async for piece in request.stream():
                data += piece
                if len(data) > most:
                    raise too_large
    except TimeoutError:
        slow = Refused(408, "the body did not come in time", code="timeout")
        slow.headers["connection"] = "close"
        raise slow from None
    return bytes(data)


def _describe(app: FastAPI) -> None:
    """Put the forms of requests into the OpenAPI description."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = description.setdefault("components", {}).setdefault("schemas", {})
            for kind in (ChatRequest, LabelRequest):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[kind.__name__] = schema
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
