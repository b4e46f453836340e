"""Links that lead from file to file in the checkout, turned into links from page to page.

The pages are written to be read in the checkout too, so their links name files. On the site
some of these files are pages under another name, and some are not there: of a link to such a file
only its words stay.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

# A fenced block, inline code, or a link; only links are changed.
_PARTS = re.compile(
    r"(?P<fence>^(?P<marks>```+|~~~+)[^\n]*\n.*?^(?P=marks)\s*?$)"
    r"|(?P<code>(?<!`)`[^`\n]+`(?!`)(?!\]\())"
    r"|(?P<image>!?)\[(?P<words>[^\]\n]*(?:\n[^\]\n]+)?)\]\((?P<target>[^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)
_ELSEWHERE = re.compile(r"[a-z]+:|#|/")
_MARKERS = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)


def relinked(text: str, source: str, page: str, pages: Mapping[str, str]) -> str:
    """Return the Markdown ``text`` of ``source`` as it stands on the page ``page``.

    ``pages`` gives the page of every file and folder that has one; all paths are POSIX paths
    from the root of the checkout, or of the site.
    """

    def changed(found: re.Match[str]) -> str:
        target = found["target"]
        if target is None or _ELSEWHERE.match(target):
            return found[0]
        path, _, anchor = target.partition("#")
        named = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = pages.get(named)
        if there is None:
            return found["words"]
        link = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{found['image']}[{found['words']}]({link}{'#' + anchor if anchor else ''})"

    return _PARTS.sub(changed, text)


def without_markers(text: str) -> str:
    """Return the text without the comments between which tables and outputs are filled in."""
    return _MARKERS.sub("\n", text)
