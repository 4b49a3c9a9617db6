"""The description of the service: an OpenAPI document, and a page that shows it."""

import html
import json
from typing import Any

import robustscanner_jax
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.views import ANGLES

NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
TEXT = {"type": "string"}
READING = {
    "type": "object",
    "description": "text and confidences, or error where this image cannot be read",
    "properties": {
        "text": TEXT,
        "confidence": NUMBER,
        "characters": {"type": "array", "items": TEXT},
        "character_confidences": {"type": "array", "items": NUMBER},
        "angle": {
            "enum": list(ANGLES),
            "description": "degrees, anti-clockwise, by which the crop was turned",
        },
        "closer": {
            "type": "boolean",
            "description": "whether the crop was read without its edges",
        },
        "error": TEXT,
    },
}
ANSWER = {
    "type": "object",
    "required": ["readings", "milliseconds"],
    "properties": {
        "readings": {"type": "array", "items": READING},
        "milliseconds": {"type": "number", "description": "headers to answer"},
    },
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
FILE = {"type": "string", "format": "binary"}
BASE64 = {"type": "string", "format": "byte"}
_POINT = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 2,
    "maxItems": 2,
}
REGIONS = {
    "type": "array",
    "description": "words of the only image to read, instead of all of it: two corners "
    "of a box, four corners clockwise from the text's top left, or along the top of a "
    "bent word and back along its bottom; as points [x, y] or numbers one by one, in "
    "pixels of the image as it is seen, after EXIF rotation",
    "minItems": 1,
    "items": {
        "oneOf": [
            {"type": "array", "minItems": 2, "items": _POINT},
            {"type": "array", "minItems": 4, "items": {"type": "number"}},
        ]
    },
}
_MAPS = {
    "type": "array",
    "items": {"type": "array"},
    "description": "[step][row][column]: rows and columns of cells over the view that "
    "is read, which is turned or closer where the service reads such views",
}
EXPLAINED = {
    "type": "object",
    "properties": READING["properties"]
    | {
        "hybrid_attention": _MAPS,
        "position_attention": _MAPS,
        "position_share": {"type": "array", "items": NUMBER},
    },
}


def _body(most: int) -> dict[str, Any]:
    """Returns how up to `most` images are sent."""
    files, texts = (
        {"type": "array", "items": kind, "minItems": 1, "maxItems": most}
        for kind in (FILE, BASE64)
    )
    regions = REGIONS | {"maxItems": most}
    in_form = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": regions,
    }
    form, one, many = (
        {"type": "object", "properties": fields}
        for fields in (
            {"image": files, "regions": in_form},
            {"image": BASE64, "regions": regions},
            {"images": texts},
        )
    )
    return {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"oneOf": [one, many]}},
        "image/*": {"schema": FILE},
        "application/octet-stream": {"schema": FILE},
    }


def _refusals(limits: Limits) -> dict[str, str]:
    return {
        "400": "malformed body",
        "401": "no or a wrong token",
        "408": f"the body took longer than {limits.body_seconds:g} seconds",
        "413": f"more than {limits.body_bytes:,} bytes, or {limits.images} images or "
        "regions",
        "415": "another Content-Type",
        "422": "no image or region of the request can be read",
        "500": "the network or the service failed; its log says why",
        "503": "full, warming up or stopping; Retry-After says when to come back",
        "504": f"no answer within {limits.deadline_seconds:g} seconds",
    }


def _response(description: str, schema: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"description": description, "content": content}


def _read(limits: Limits) -> dict[str, Any]:
    text = "what was read, in the order of the images or regions"
    responses = {"200": _response(text, ANSWER)}
    for status, text in _refusals(limits).items():
        schema = {"anyOf": [ANSWER, ERROR]} if status in ("422", "500") else ERROR
        responses[status] = _response(text, schema)
    return {
        "summary": "Reads one or many images",
        "requestBody": {"required": True, "content": _body(limits.images)},
        "responses": responses,
    }


def _explain(limits: Limits) -> dict[str, Any]:
    refusals = _refusals(limits) | {
        "400": "malformed body, or more than one image",
        "404": "an exported network cannot show where it looked",
        "422": "the image cannot be read",
    }
    text = "what was read, and where both branches looked"
    responses = {"200": _response(text, EXPLAINED)}
    for status, text in sorted(refusals.items()):
        responses[status] = _response(text, ERROR)
    return {
        "summary": "Reads one image and shows where a live network looked",
        "requestBody": {"required": True, "content": _body(1)},
        "responses": responses,
    }


def _probe(summary: str, *statuses: str) -> dict[str, Any]:
    responses = {status: {"description": summary} for status in statuses}
    # Whatever the document says of tokens: probes are open.
    return {"get": {"summary": summary, "responses": responses, "security": []}}


def document(limits: Limits, *, token: bool) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of a service."""
    fields: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "RobustScanner",
            "version": robustscanner_jax.__version__,
            "description": "Reads the text of word crops.",
        },
        "paths": {
            "/read": {"post": _read(limits)},
            "/explain": {"post": _explain(limits)},
            "/livez": _probe("The process answers", "200", "500"),
            "/readyz": _probe("Warmed up and not stopping", "200", "503"),
            "/metrics": _probe("Counters for Prometheus", "200"),
        },
    }
    if token:
        scheme = {"type": "http", "scheme": "bearer"}
        fields["components"] = {"securitySchemes": {"token": scheme}}
        fields["security"] = [{"token": []}]
    return fields


def as_html(document: dict[str, Any]) -> str:
    """Returns the document as a page that loads nothing from elsewhere."""
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            rows = "".join(
                f"<tr><td>{status}</td><td>{html.escape(response['description'])}</td>"
                for status, response in operation["responses"].items()
            )
            body = operation.get("requestBody")
            shown = html.escape(json.dumps(body["content"], indent=1)) if body else ""
            parts.append(
                f"<h2>{method.upper()} {path}</h2>"
                f"<p>{html.escape(operation['summary'])}"
                f"<table>{rows}</table>"
                + (
                    f"<details><summary>body</summary><pre>{shown}</pre></details>"
                    * bool(body)
                )
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>API</title>'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        "<style>body{font:16px system-ui;max-width:50em;margin:2em auto;padding:0 1em}"
        "td{padding:.2em 1em .2em 0}</style><h1>RobustScanner</h1>"
        '<p>The same as a document: <a href="openapi.json">openapi.json</a>'
        + "".join(parts)
        + "</html>"
    )
