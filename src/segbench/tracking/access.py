"""How Weights & Biases is used here: its mode, and whether its server answers; does not import wandb."""

from __future__ import annotations

import base64
import json
import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from segbench.errors import SegbenchError

Mode = Literal["online", "offline", "disabled", "shared"]
MODES: tuple[Mode, ...] = ("online", "offline", "disabled", "shared")
_FORMER: Mapping[str, Mode] = {"dryrun": "offline", "run": "online"}
"""Names that wandb still takes for its modes."""
INIT_S = 10.0
"""Seconds for the start of a run on a server that answers."""
PROBE_S = 4.0
"""Seconds in which a server has to answer a first question."""


@dataclass(frozen=True)
class Access:
    """How a run uses W&B.

    Attributes:
        mode: one of `MODES`.
        why: what decided it; empty where nothing did.
    """

    mode: Mode
    why: str = ""


def access(given: Mapping[str, Any] | None = None) -> Access:
    """The mode of a run: of its own settings first, then of the environment; offline without a key.

    Args:
        given: `mode` and `offline` of `logger.wandb`.

    Raises:
        SegbenchError: a mode that wandb does not know.
    """
    given = given or {}
    if given.get("mode"):
        asked = Access(_mode(given["mode"], "logger.wandb.mode"), f"logger.wandb.mode={given['mode']}")
    elif given.get("offline"):
        asked = Access("offline", "logger.wandb.offline=true")
    elif _is_set("WANDB_DISABLED"):
        # wandb reads it no longer, but scripts and clusters still set it.
        asked = Access("disabled", f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}")
    elif os.environ.get("WANDB_MODE"):
        asked = Access(_mode(os.environ["WANDB_MODE"], "WANDB_MODE"), f"WANDB_MODE={os.environ['WANDB_MODE']}")
    else:
        asked = Access("online")
    if asked.mode in ("online", "shared") and _key() is None and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return Access("offline", f"no key for {base_url()}: wandb login, or WANDB_API_KEY")
    return asked


def base_url() -> str:
    """The address of the server."""
    return (os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").rstrip("/")


def prepare() -> None:
    """Set what wandb reads when it is imported; what the user set stays."""
    os.environ.setdefault("WANDB_SILENT", "true")
    # Its own times and errors go to the server, offline too: the end of a run would wait for one that does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def silence(seconds: float = PROBE_S) -> str | None:
    """Why the server does not answer; None if it does.

    Args:
        seconds: that this may take, name resolution and a server that says nothing included.
    """
    answer = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        answer[0] = _ask(seconds)

    # Resolving a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answer[0] or None


def _ask(seconds: float) -> str:
    headers = {"Content-Type": "application/json", "User-Agent": "segbench"}
    if key := _key():
        headers["Authorization"] = f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}"
    body = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
    try:
        request = urllib.request.Request(f"{base_url()}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=seconds, context=_certificates()) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            # Without a key of its own the question cannot be answered, but somebody is there.
            return f"the key is refused ({error.code})" if key else ""
        return f"it answers {error.code} {error.reason}"
    except TimeoutError:
        return f"no answer in {seconds:g} s"
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"no answer in {seconds:g} s"
        return " ".join(str(error.reason).split()) or type(error.reason).__name__
    except (OSError, ValueError) as error:
        # A connection that ends, or an answer that is no JSON: a captive portal.
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _certificates() -> ssl.SSLContext | None:
    if urlsplit(base_url()).scheme != "https":
        return None
    context = ssl.create_default_context()
    for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := os.environ.get(variable):
            context.load_verify_locations(path)
    if _is_set("WANDB_INSECURE_DISABLE_SSL"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")


def _mode(value: Any, key: str) -> Mode:
    name = _FORMER.get(str(value), str(value))
    for mode in MODES:
        if mode == name:
            return mode
    raise SegbenchError(f"{key}={value}", f"one of {', '.join(MODES)}", f"correct {key}")


def _key() -> str | None:
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlsplit(base_url()).netloc
    try:
        found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] or None if found else None
