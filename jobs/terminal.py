"""What others wrote, on a terminal: it is shown, and neither acted on nor taken for markup."""

from __future__ import annotations

import re

from rich import markup

# All of the category Cc but tab and line feed. Rich takes out some of them, and not the one that begins a sequence.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(value: object) -> str:
    """Returns the text of a value, to be printed without markup; control characters are seen as such."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(value))


def escape(value: object) -> str:
    """Returns the text of a value for use within markup; control characters are seen as such."""
    return markup.escape(plain(value))
