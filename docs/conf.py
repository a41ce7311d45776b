"""How Sphinx builds the site: `make docs`. Pages need no network: no script or font is fetched, formulas are MathML."""

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]  # the code beside these pages

from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from reference import fill  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

from minitx import __version__  # noqa: E402

project = "minitx"
author = "The minitx contributors"
copyright = author
release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
nitpicky = True
highlight_language = "none"
smartquotes = False  # --plot is an option, not a dash
html_theme = "furo"
html_title = f"minitx {release}"
html_static_path = ["static", *(f"figures/front{form}.png" for form in ("", "-narrow"))]  # those in HTML
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
exclude_patterns = ["figures"]


def setup(app: Sphinx) -> None:
    """Fill each page with what is made from the code, and write formulas as MathML."""
    app.connect("source-read", lambda app, name, text: text.__setitem__(0, fill(text[0])))
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))


def write_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula in a line."""
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def write_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
