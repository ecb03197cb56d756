"""Pages that lie elsewhere in the repository: the weights' cards, changelog, contributing."""

from __future__ import annotations

import re
from pathlib import Path


def pages(root: Path) -> dict[str, str]:
    """File name → text of the page, with links that fit where it lies in the site."""
    sources = [*sorted((root / "weights").glob("*.md")), root / "CHANGELOG.md"]
    sources.append(root / "CONTRIBUTING.md")
    names = "\n".join(card.stem for card in sorted((root / "weights").glob("*.md")))
    index = f"# Cards of the weights\n\n```{{toctree}}\n{names}\n```\n"
    return {"weights/index.md": index} | {
        str(source.relative_to(root)): _moved(source, source.relative_to(root))
        for source in sources
    }


def _moved(source: Path, place: Path) -> str:
    """The text of a page that moves from the top of the repository to docs/generated."""
    text = source.read_text(encoding="utf-8")
    if len(place.parts) > 1:  # weights/NAME.md
        return re.sub(r"\]\(\.\./docs/", "](../../", text)
    return re.sub(r"\]\(docs/", "](../", text)
