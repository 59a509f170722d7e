"""For mkdocs: links from a page of the documentation to a file of the repository, which work on
GitHub as they stand, lead there from the built site too.
"""

from __future__ import annotations

import re
from typing import Any

TO_REPOSITORY = re.compile(r"\]\(\.\./(?P<path>[^)\s]+)\)")


def on_page_markdown(markdown: str, config: dict[str, Any], **_: object) -> str:
    """mkdocs calls this for each page (https://www.mkdocs.org/dev-guide/plugins/#events)."""
    base = f"{config['repo_url'].rstrip('/')}/blob/main"
    return TO_REPOSITORY.sub(lambda found: f"]({base}/{found['path']})", markdown)
