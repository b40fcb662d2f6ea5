"""What may name a domain, in a corpus as in a store."""

from __future__ import annotations

import re
from pathlib import Path

from dograph.errors import UserError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


def check_domain_name(name: str, where: Path | str) -> None:
    """Refuse names that could leave the store's folder or confuse a command line.

    Args:
        name: of the domain.
        where: the file or folder that names it, for the message.

    Raises:
        UserError: if the name is refused.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise UserError(
            f"{where}: '{name}' cannot name a domain; use letters, digits, '_', '-' and single "
            "dots, beginning with a letter or digit."
        )
