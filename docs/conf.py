"""How Sphinx builds the site: `make docs` writes it to build/site."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]  # the pages describe this checkout's package

from docutils import nodes  # noqa: E402
from generators import commands, copies, docstrings, notebooks, reference  # noqa: E402

from pcnn.version import __version__  # noqa: E402

project = "pcnn"
author = "the authors of pcnn"
release = version = __version__
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["generators", "notebooks", "style"]

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4
smartquotes = False  # it makes a dash of the two hyphens of an option
suppress_warnings = ["misc.highlighting_failure"]  # "…" within examples is no Python

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 72

html_theme = "furo"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_title = f"pcnn {release}"
html_show_copyright = False
html_copy_source = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

GENERATED = DOCS / "generated"


def write_pages(app: Any) -> None:
    """Write the pages that have another source: parsers, docstrings, cards, notebooks."""
    pages = {
        **commands.pages(ROOT),
        **reference.pages(),
        **copies.pages(ROOT),
        **notebooks.pages(DOCS / "notebooks"),
    }
    for old in GENERATED.rglob("*.*"):
        if str(old.relative_to(GENERATED)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def lead_within_the_site(app: Any, page: str, source: list[str]) -> None:
    """Have links to files beside docs/ lead to their copies in the site."""
    if not page.startswith("generated/"):
        source[0] = re.sub(r"\]\(\.\./(?=\w)", "](generated/", source[0])


def draw_dashes(app: Any, doctree: Any, page: str) -> None:
    """Put a dash between a parameter and its meaning, where Sphinx writes two hyphens."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Any) -> None:
    """Connect the functions above; Sphinx calls this."""
    os.environ.update(COLUMNS="92", NO_COLOR="1")  # the width and colours of argparse's usage
    app.connect("builder-inited", write_pages)
    app.connect("source-read", lead_within_the_site)
    app.connect("doctree-resolved", draw_dashes)
    app.connect("autodoc-process-docstring", docstrings.to_rst)
