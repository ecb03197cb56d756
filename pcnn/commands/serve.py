"""`pcnn-serve`: serve predictions over HTTP, and a page for the browser."""

from __future__ import annotations

import argparse
import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from pcnn.commands.shared import (
    add_engine,
    add_reading,
    load_recognizer,
    positive,
    run_command,
)

_EXAMPLES = """examples:
  pcnn-serve                                    # http://127.0.0.1:8000, only for this machine
  curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
  curl -F pictures=@a.jpg -F pictures=@b.png http://127.0.0.1:8000/predict
  pcnn-serve --head mine.safetensors            # labels of your own, from pcnn-train head
  PCNN_TOKEN=secret pcnn-serve --host 0.0.0.0   # for others, who send Authorization: Bearer secret
"""
_PACKAGES = ("fastapi", "uvicorn", "python_multipart")
# Connections for each waiting request; most of them are idle.
_CONNECTIONS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at [%(default)s]")
    add("--port", type=_port, default=8000, help="0 for any free port [%(default)s]")
    add("--token", default=os.environ.get("PCNN_TOKEN"), help="for clients [$PCNN_TOKEN, or none]")
    add("--no-token", action="store_true", help="allow all clients without a token")
    add("--page", type=Path, metavar="DIR", help="folder of the page [the packaged one]")
    add("--body", type=positive, default=32, metavar="MB", help="per request [%(default)s]")
    add("--pixels", type=positive, default=50, metavar="MP", help="per picture [%(default)s]")
    add("--pictures", type=positive, default=32, metavar="N", help="per request [%(default)s]")
    add("--seconds", type=positive, default=30, metavar="S", help="per request [%(default)s]")
    add("--waiting", type=positive, default=64, metavar="N", help="open requests [%(default)s]")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    add("--head", type=Path, metavar="FILE", help="your own labels, see docs/own-labels.md")
    add("--movements", action="store_true", help="also read facial movements, pose and mesh")
    add_engine(parser)
    add_reading(parser)
    add("--batch-size", type=positive, metavar="N", help="pictures in one pass")
    parser.set_defaults(as_they_are=False)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; open requests are then still answered.

    Raises InputError, WeightsError, NativeError: the server cannot be started.
    """
    import importlib.util

    from pcnn.errors import InputError

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"pcnn-serve needs {', '.join(missing)}: pip install 'pcnn[serve]'")
    import uvicorn

    from pcnn.serving.application import create_app, is_local
    from pcnn.serving.limits import Limits
    from pcnn.serving.pages import PAGE
    from pcnn.serving.records import log_to_stderr
    from pcnn.serving.server import Server

    token = None if arguments.no_token else arguments.token or None
    if token is None and not arguments.no_token and not is_local(arguments.host):
        raise InputError(
            f"--host {arguments.host}: others can reach it, so give --token TOKEN (or set "
            "$PCNN_TOKEN), or --no-token to allow all clients"
        )
    limits = Limits(
        body_bytes=1_000_000 * arguments.body,
        pixels=1_000_000 * arguments.pixels,
        pictures=arguments.pictures,
        seconds=arguments.seconds,
        waiting=arguments.waiting,
    )
    _check_address(arguments.host, arguments.port)
    recognizer = load_recognizer(arguments)
    app = create_app(recognizer, limits=limits, token=token, page=arguments.page or PAGE)
    log_to_stderr()
    server = Server(
        app,
        uvicorn.Config(
            app,
            host=arguments.host,
            port=arguments.port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_CONNECTIONS * limits.waiting,
            timeout_graceful_shutdown=arguments.seconds,
        ),
    )
    # uvicorn raises the signal that stopped it again when all is answered: that is no failure.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.run()
    return 0 if server.started else 2


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-serve`; argv, exit status, SystemExit: see shared.run_command."""
    description = "Serve expressions over HTTP, and a page that reads them in the browser."
    return run_command(*("pcnn-serve", description, add_arguments, run, argv), epilog=_EXAMPLES)


def _check_address(host: str, port: int) -> None:
    """Raise InputError if nothing can listen there; the server itself would only log it."""
    import socket

    from pcnn.errors import InputError

    free, refused = 0, None
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                with socket.socket(family, kind, protocol) as tried:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    tried.bind(address)
                    free += 1
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                refused = error  # a host may have addresses of a kind that the machine lacks
        if refused and not free:
            raise refused
    except (OSError, UnicodeError) as error:  # the second of a host that can be none
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"--host {host} --port {port}: {reason}: choose another") from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be 0…65535, got {text!r}")
    return int(text)
