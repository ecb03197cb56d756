"""What several benchmarks need: the machine's name, tables put into a page."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def put_into_page(page: Path, text: str, begin: str, end: str) -> None:
    """Put tables between the two marks of a page. Raises ValueError: the page has them not."""
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
