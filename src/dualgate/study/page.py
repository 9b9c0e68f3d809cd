"""The report as one page that needs nothing beside it: light and dark, narrow and wide, on screen and on paper."""

import base64
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--page:#fff;--soft:#555;--line:#ddd;--box:#f0f4f8;--mark:#36648b;
--pass:#1b6e3c;--marginal:#8a5a00;--fail:#a3282d}
@media screen and (prefers-color-scheme:dark){:root{--ink:#d8dbe0;--page:#16191d;--soft:#a3a9b2;--line:#3a4048;
--box:#20252b;--mark:#7fb0d8;--pass:#6fcf97;--marginal:#e5b567;--fail:#f08a8a}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:78rem;margin:0 auto;padding:1rem;color:var(--ink);
background:var(--page)}
p{max-width:46rem}h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
.summary{background:var(--box);border-left:4px solid var(--mark);padding:.75rem 1rem;max-width:none}
.note{color:var(--soft);font-size:.9rem;margin:.25rem 0 .75rem}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.875rem;white-space:nowrap;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}th:first-child,td:first-child,.words{text-align:left}
td:first-child{white-space:normal;min-width:10rem}
.words{white-space:normal;min-width:9rem}.long{min-width:15rem}
.pass,.marginal,.fail{font-weight:600}.pass{color:var(--pass)}.marginal{color:var(--marginal)}.fail{color:var(--fail)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem 2rem;margin:1rem 0}
figure{margin:0;break-inside:avoid}figure img{width:100%;max-width:34rem;height:auto;display:block}
figcaption{font-size:.875rem;color:var(--soft);max-width:34rem}
.answers{list-style:none;padding:0;margin:.5rem 0;display:grid;gap:.75rem}
.answers li{border-left:4px solid var(--line);padding:.1rem 0 .1rem .75rem}
.answers .part{font-size:.875rem;color:var(--soft);display:block}
@media(max-width:600px){body{padding:.75rem}th,td{padding:.3rem .4rem}
td:first-child,th:first-child{white-space:normal;min-width:7rem;padding-left:0}.words{min-width:8rem}}
@media print{html{font-size:9pt}body{max-width:none;font-size:9pt;padding:0}.wide{overflow:visible}
p{max-width:none}table{font-size:7pt;white-space:normal}h2,.note{break-after:avoid}tr,li{break-inside:avoid}
.figures{grid-template-columns:1fr 1fr}figure img{width:auto;max-width:100%;max-height:21cm}}
"""
LONG = 45  # letters from which a cell is a sentence


def page(title: str, summary: str, blocks: list[str]) -> str:
    """Put a title, the summary and finished blocks into one page."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", f'<p class="summary">{escape(summary)}</p>', *blocks])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def section(heading: str, note: str, content: str) -> str:
    """Return a heading, a line of explanation, and what follows."""
    return f'<h2>{escape(heading)}</h2>\n<p class="note">{escape(note)}</p>\n{content}'


def answer_list(rows: list[list[str]]) -> str:
    """Return the rows of the table of answers as a list, which a narrow page can hold."""
    items = []
    for question, verdict, decides, compared, because in rows[1:]:
        parts = "".join(f'<span class="part">{escape(part)}</span>' for part in [*decides.split("; "), compared])
        items.append(f'<li>{escape(question)} {_verdict(verdict)}: {escape(because)}.{parts}</li>')  # fmt: skip
    return '<ul class="answers">\n' + "\n".join(items) + "\n</ul>"


def table(rows: list[list[str]]) -> str:
    """Return a table whose first row is the head."""
    head, *body = rows
    kinds = [column_kind(place, [row[place] for row in body]) for place in range(len(head))]

    def line(tag, row):
        cells = (f"<{tag}{kind}>{_cell(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
        return "<tr>" + "".join(cells) + "</tr>"

    lines = [f"<thead>{line('th', head)}</thead>"] if any(head) else []  # paper repeats it on every page
    lines += ["<tbody>", *(line("td", row) for row in body), "</tbody>"]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def figure(light: bytes, dark: bytes, caption: str) -> str:
    """Return a figure that is inside the page, in both colour schemes; paper has the light one."""
    one, other = (f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}" for image in (light, dark))
    return (
        f'<figure><picture><source media="screen and (prefers-color-scheme:dark)" srcset="{other}">'
        f'<img alt="{escape(caption)}" src="{one}"></picture><figcaption>{escape(caption)}</figcaption></figure>'
    )


def column_kind(place: int, cells: list[str]) -> str:
    """Class of a column: text reads from the left, and sentences need room; empty for numbers and the first column."""
    if place == 0 or not all(sum(map(str.isalpha, cell)) > len(cell) / 2 for cell in cells if cell):
        return ""
    return ' class="words long"' if max(map(len, cells)) > LONG else ' class="words"'


def _cell(cell):
    """Escape a cell, and colour a verdict at its end."""
    words = cell.rsplit(" ", 1)
    if words[-1] in ("pass", "marginal", "fail"):
        return escape(" ".join(words[:-1])) + " " * (len(words) > 1) + _verdict(words[-1])
    return escape(cell)


def _verdict(word):
    return f'<span class="{word}">{word}</span>'
