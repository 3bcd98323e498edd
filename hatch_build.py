"""What hatchling asks while it builds: the README as a package index shows it, away from the files that it links to."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[[^\]]*\]\((?!https:)[^)]*\)\n\n\*[^\n]*\*\n\n")
"""A picture of the repository, with the caption below."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https:)[^)]*\)")


class Description(MetadataHookInterface):
    """Links into the repository become their text."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description of the package's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = _LINK.sub(r"\1", _PICTURE.sub("", text))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
