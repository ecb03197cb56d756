"""The notebooks as pages, with the files to download."""

from __future__ import annotations

from pathlib import Path


def pages(folder: Path) -> dict[str, str]:
    """File name → text, for each script in `folder`: a page and a Jupyter notebook."""
    import jupytext

    found = {}
    for script in sorted(folder.glob("*.py")):
        notebook = jupytext.read(script, fmt="py:percent")
        for i, cell in enumerate(notebook.cells):
            cell["id"] = f"{script.stem}-{i}"  # jupytext draws one by chance
        parts = [
            cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
            for cell in notebook.cells
        ]
        name = script.stem
        title, *rest = parts
        files = f"{{download}}`As a Jupyter notebook <{name}.ipynb>`"
        found[f"notebooks/{name}.md"] = "\n\n".join([title, files, *rest]) + "\n"
        found[f"notebooks/{name}.ipynb"] = jupytext.writes(notebook, fmt="ipynb")
    return found
