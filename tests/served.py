"""A running pcnn-serve, for tests that ask a server or open its page."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "pcnn" / "serving" / "page"  # of the checkout, where `make page` builds
START = "import sys; from pcnn.commands.serve import main; sys.exit(main(sys.argv[1:]))"


class Server:
    """A running pcnn-serve. log: its lines so far."""

    def __init__(self, *options: str) -> None:
        self.log: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "--port", "0", "--weights", "small", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        self.pid = self._process.pid
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        line = self.wait_for(lambda line: "running on" in line["event"], 120)
        self.port = int(re.findall(r":(\d+) ", line["event"])[0])

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"event": line, "level": "not JSON"})

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The first line of the log that is wanted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.log):
                if wanted(line):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"never logged; {self.log}")

    def sent(self, path: str) -> int:
        """Bytes that were answered so far to requests of a path, as the log counts them."""
        return sum(line["sent"] for line in self.log if line.get("path") == path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def send(self, how: signal.Signals) -> None:
        self._process.send_signal(how)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Exit status. It has two minutes, for busy machines."""
        self.send(how)
        try:
            return self._process.wait(120)
        finally:
            self._process.kill()
            self._reading.join()  # it ends with the process
            if self._process.stderr:
                self._process.stderr.close()
