"""Text from data in Markdown."""

import re


def as_text(value):
    """Write a value so that Markdown shows it as it is, on one line: no tag, entity, link, code or cell of a table."""
    text = " ".join(str(value).split())
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))
    return re.sub(r"([|`]|(?<=\])[(\[])", r"\\\1", text)
