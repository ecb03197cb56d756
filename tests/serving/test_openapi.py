"""What the server says of itself holds for requests that schemathesis makes of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from served import PAGE, Server

pytestmark = [
    pytest.mark.serve,
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis"
    ),
]
EXAMPLES = 25  # of each operation in each phase
TOKEN = "open sesame"
# It takes any bytes for a picture: that those are refused, it cannot know from their type.
NOT_ASKED = "positive_data_acceptance"


@pytest.mark.parametrize("token", [None, TOKEN])
def test_it_does_what_its_openapi_says(token: str | None, tmp_path: Path) -> None:
    options = ["--token", token] if token else []
    server = Server("--page", str(PAGE), *options)
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks=all"]
    command += [f"--exclude-checks={NOT_ASKED}", "--generation-deterministic", "--no-color"]
    command += [f"--max-examples={EXAMPLES}", "--request-timeout=60"]
    command += ["--header", f"Authorization: Bearer {token}"] if token else []
    try:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        asked: set[Any] = {line.get("path") for line in server.log}
        assert {"/predict", "/predict/annotated", "/healthz", "/metrics"} <= asked
        wrong = [line for line in server.log if line["level"] not in ("info", "warning")]
        assert wrong == []
    finally:
        assert server.stop() == 0
