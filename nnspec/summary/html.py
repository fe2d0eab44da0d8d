"""The summary as a page for browsers: the same lines as the table, each block one that opens and closes."""

from __future__ import annotations

from html import escape

from nnspec.summary import Summary
from nnspec.summary.table import HEADER, NUMERIC, lines, totals

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #e4e7eb; white-space: pre; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.block td { background: #f3f5f8; font-weight: 600; cursor: pointer; }
pre { background: #f3f5f8; padding: 1rem; }
"""

_SCRIPT = """
document.querySelectorAll("tr.block").forEach(row => row.addEventListener("click", () => {
  const depth = +row.dataset.depth, shut = row.classList.toggle("shut");
  for (let r = row.nextElementSibling; r && +r.dataset.depth > depth; r = r.nextElementSibling) r.hidden = shut;
}));
"""


def page(summary: Summary, depth: int | None = None) -> str:
    """Return a whole HTML page that needs nothing from elsewhere."""
    inputs = ", ".join(f"{name}: {type_}" for name, type_ in summary.inputs.items())
    head = "".join(f"<th{_class(i)}>{escape(text)}</th>" for i, text in enumerate(HEADER))
    rows = []
    for line in lines(summary.layers, depth):
        cells = "".join(f"<td{_class(i)}>{escape(text)}</td>" for i, text in enumerate(line.cells()))
        kind = ' class="block"' if line.kind == "block" else ""
        rows.append(f'<tr data-depth="{line.depth}"{kind}>{cells}</tr>')
    body = "\n".join(rows)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{escape(summary.network)}</title>
<style>{_STYLE}</style>
<h1>{escape(summary.network)}({escape(inputs)})</h1>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<pre>{escape(chr(10).join(totals(summary)))}</pre>
<script>{_SCRIPT}</script>
</html>
"""


def _class(column: int) -> str:
    return ' class="n"' if column in NUMERIC else ""
