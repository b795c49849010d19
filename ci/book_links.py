"""A preprocessor of mdBook: links that leave docs/ become links to the repository, whose address is `git-repository-url` in book.toml."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from typing import Any

LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]*|\.\.)(#[^)\s]*)?(\))")


def rewrite(content: str, page: str, repository: str) -> str:
    def target(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), found[2]))
        if path.startswith("docs/"):
            return found[0]
        return f"{found[1]}{repository}/blob/main/{path}{found[3] or ''}{found[4]}"

    return LINK.sub(target, content)


def walk(items: list[Any], repository: str) -> None:
    for item in items:
        if isinstance(item, dict) and (chapter := item.get("Chapter")):
            chapter["content"] = rewrite(chapter["content"], chapter["source_path"] or "", repository)
            walk(chapter["sub_items"], repository)


def main() -> None:
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    walk(book["items"], context["config"]["output"]["html"]["git-repository-url"])
    json.dump(book, sys.stdout)


main()
