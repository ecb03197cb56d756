"""The page's files over HTTP: from this origin alone, and from no other."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from pcnn.errors import InputError

# The folder of the page as it comes with the package.
PAGE = Path(__file__).parent / "page"
# Below it, what is built for it: networks and the runtime, whose names change with their content.
BUILT = "built"
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".gz": "application/octet-stream",  # unpacked by the page, not on the way
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    # The page also says so itself, for servers that know nothing of it.
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # Together they give the page more than one thread.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve the files that a folder has now, and `index.html` at /.

    Raises InputError: the folder has no index.html.
    """
    if not (folder / "index.html").is_file():
        raise InputError(f"{folder}: has no index.html: --page takes the folder of the page")
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

    # Its own address takes a request that the server's take by another method only.
    methods = {
        route.path: ", ".join(sorted(route.methods or ()))
        for route in app.routes
        if isinstance(route, APIRoute)
    }

    @app.api_route("/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(path: str, request: Request) -> Response:
        if allowed := methods.get(f"/{path}"):
            raise HTTPException(405, headers={"allow": allowed})
        name = path or "index.html"
        if name not in files:
            raise HTTPException(404)
        return _answer(name, files[name], request)


def _answer(name: str, path: Path, request: Request) -> Response:
    steady = name.startswith(f"{BUILT}/") and name != f"{BUILT}/manifest.json"
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    headers = {
        **_HEADERS,
        "cache-control": "public, max-age=31536000, immutable" if steady else "no-cache",
    }
    if steady:
        return FileResponse(path, media_type=kind, headers=headers)
    content = path.read_bytes()
    headers["etag"] = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
