"""The token that whoever talks to a Ray must show. Imports no Ray.

Ray listens on every address of a machine, also where it is started for this machine alone, and whoever it lets in runs
code. Hence the token, which Ray itself asks for by default since 2.59.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from raypruning.errors import ResourceError

log = logging.getLogger("raypruning.ray")

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_GIVE = f"set {TOKEN}, or {TOKEN_PATH} to a file that holds it"


def provide_token(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give the Ray that this process is about to start a token: the one in the environment, or a new one.

    A new one lies in the environment of this process and its children, for as long as they live, and nowhere else. Ray
    would keep it in `~/.ray/auth_token`: readable by everybody who may enter that folder, and impossible where a pod's
    home folder is missing or read-only.

    Raises: ResourceError: the environment names a file without a token.
    """
    if environment.get(MODE, "").lower() == "disabled":
        log.warning("%s=disabled: whoever reaches this machine can run code as you; unset it for a token", MODE)
    elif not environment.get(TOKEN):
        if path := environment.get(TOKEN_PATH):
            _check_file(Path(path))
        else:
            environment[TOKEN] = secrets.token_hex(32)


def token_source(environment: Mapping[str, str] = os.environ) -> str:
    """Where the token lies that a Ray which others started is shown, in Ray's own order; "" where there is none.

    Raises: ResourceError: the environment names a file without a token.
    """
    if environment.get(TOKEN):
        return TOKEN
    if path := environment.get(TOKEN_PATH):
        _check_file(Path(path))
        return path
    file = Path(environment.get("HOME") or "/nonexistent", ".ray", "auth_token")
    return str(file) if file.is_file() else ""


def _check_file(path: Path) -> None:
    try:
        reason = "" if path.read_text().strip() else "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else "it is not text"
    if reason:
        raise ResourceError(f"{TOKEN_PATH}: there is no token in {path}: {reason}; unset it, or {HOW_TO_GIVE}")
