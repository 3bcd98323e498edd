"""Download files: resumed after interruptions, from mirrors in turn, checked against a published or recorded digest.

urllib and not pooch: a download of two gigabytes must resume after a lost connection, and pooch starts over.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from segbench.config.handed_over import read_json
from segbench.data.prepare.downloads import RECORD, SILENT, Listener, Record, Remote, digest_of
from segbench.errors import FULL, SegbenchError

_CHUNK = 2**20
_READ_S = 60.0
DEADLINE_S = 6 * 3600.0
"""A download of one address must end within this: a server that sends a byte a minute never times out."""


def fetch(
    remote: Remote,
    folder: Path,
    listener: Listener = SILENT,
    mirror: str | None = None,
    attempts: int = 4,
    wait: float = 2.0,
    deadline: float = DEADLINE_S,
) -> Path:
    """Make sure that the file is in `folder` and complete.

    A download goes to `NAME.part`, which is renamed if its digest is right; an interrupted one resumes from there.

    Args:
        remote: the file.
        folder: its destination; created if missing.
        listener: receives messages and progress.
        mirror: an address to try first: MIRROR/NAME.
        attempts: tries per address if the connection breaks.
        wait: seconds before the second try, doubled for each further one.
        deadline: seconds for all tries of an address together.

    Raises:
        SegbenchError: no address provides the file, or it has another digest.
    """
    target = folder / remote.name
    if target.is_file():
        _verify(remote, target, folder)
        listener.say(f"{remote.name}: already there, {_expected(remote, folder) or 'sha256 recorded'}")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in (*([f"{mirror.rstrip('/')}/{remote.name}"] if mirror else []), *remote.urls):
        try:
            answer = _download_with_retries(url, remote, folder, listener, attempts, wait, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise _full(remote, folder, error) from error
            failures.append(f"{url}: {_reason(error)}")
            listener.say(f"{remote.name}: {failures[-1]}")
            continue
        told = f"{remote.name}: fetched, {target.stat().st_size} bytes from {answer['host']}"
        if remote.digest is None:
            told += f", ETag {answer['etag'] or 'none'}; nobody published a digest, sha256 recorded in {RECORD}"
        listener.say(told)
        return target
    expected = _expected(remote, folder)
    raise SegbenchError(
        f"{remote.name} cannot be fetched: " + "; ".join(failures),
        f"the file {target}" + (f" with {expected}" if expected else ", whose digest nobody published"),
        f"run the command again (it resumes); or fetch {remote.urls[0]} by other means, put it into {folder} as "
        f"{remote.name} and run the command again" + (f". {remote.terms}" if remote.terms else ""),
    )


def _full(remote: Remote, folder: Path, error: OSError) -> SegbenchError:
    return SegbenchError(
        f"{remote.name} cannot be written into {folder}: {error.strerror}",
        "a disk with room for the download, and for what it unpacks to beside it",
        "free it, or choose another root=DIR, and run the command again (it resumes)",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(error.reason) if isinstance(error, urllib.error.URLError) else str(error) or type(error).__name__


def _expected(remote: Remote, folder: Path) -> str | None:
    if remote.digest:
        return remote.digest
    recorded = Record(folder).read().get(remote.name, {}).get("sha256")
    return f"sha256:{recorded}" if recorded else None


class _WrongDigestError(ValueError):
    pass


def _verify(remote: Remote, path: Path, folder: Path, url: str = "placed by hand", **answer: str | None) -> None:
    """Compare the digest with the published or recorded one, or record it."""
    expected = _expected(remote, folder)
    algorithm, wanted = (expected or "sha256:").split(":", 1)
    digest = digest_of(path, algorithm)
    if wanted and digest != wanted:
        if path.name != remote.name:
            raise _WrongDigestError(f"the download has {algorithm}:{digest}, not {expected}")
        known = "published" if remote.digest else f"recorded at the first download ({folder / RECORD})"
        raise SegbenchError(
            f"{path} has {algorithm}:{digest}",
            f"{expected}, {known}",
            f"if it is damaged, delete it and run the command again; if its publisher changed it, delete {RECORD} too",
        )
    if not Record(folder).read().get(remote.name, {}).get("sha256"):
        sha256 = digest if algorithm == "sha256" else digest_of(path)
        told = {"url": url, "bytes": path.stat().st_size, "sha256": sha256, "published": remote.digest, **answer}
        Record(folder).update(remote.name, **told, unpacked=False)


def _download_with_retries(
    url: str, remote: Remote, folder: Path, listener: Listener, attempts: int, wait: float, deadline: float
) -> dict[str, str | None]:
    part, ends = folder / f"{remote.name}.part", time.monotonic() + deadline
    for attempt in range(attempts):
        last = attempt == attempts - 1
        resumed = part.is_file()
        try:
            answer = _download(url, part, remote, listener, ends)
            _verify(remote, part, folder, url, **answer)
        except urllib.error.HTTPError as error:
            error.close()
            if last or (error.code < 500 and error.code != 429):
                raise
        except (urllib.error.URLError, _LateError):
            # No server answers; the next address is more promising than another try.
            raise
        except _WrongDigestError:
            # Halves of two files, or a wrong file; a fresh start shows which.
            part.unlink()
            _state_of(part).unlink(missing_ok=True)
            if last or not resumed:
                raise
            listener.say(f"{remote.name}: the resumed file has a wrong digest, starting over")
            continue
        except (OSError, http.client.HTTPException) as broken:
            # A disk that is full stays so, at whatever address.
            if last or (isinstance(broken, OSError) and broken.errno in FULL):
                raise
        else:
            os.replace(part, folder / remote.name)
            _state_of(part).unlink(missing_ok=True)
            return answer
        time.sleep(wait * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


class _LateError(TimeoutError):
    pass


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Tells of another host, and refuses to leave https and the web."""

    def __init__(self, name: str, listener: Listener) -> None:
        self._name, self._listener = name, listener

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme != "https" and (new.scheme != "http" or old.scheme == "https"):
            raise ValueError(f"redirected to {newurl}, which is not {'https' if old.scheme == 'https' else 'the web'}")
        if new.hostname != old.hostname:
            self._listener.say(f"{self._name}: {old.hostname} redirects to {new.hostname}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _download(url: str, part: Path, remote: Remote, listener: Listener, ends: float) -> dict[str, str | None]:
    """Fill the part, or go on with it; what the server said of the file."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("neither http nor https")
    request = urllib.request.Request(url, headers={"User-Agent": "segbench", "Accept-Encoding": "identity"})
    start, before = _resume_from(url, part, remote, request)
    with _open(request, part, start, _Redirects(remote.name, listener)) as response:
        headers = response.headers
        if (headers.get("Content-Encoding") or "identity") != "identity":
            raise ValueError(f"the server packed the file by {headers['Content-Encoding']} without being asked to")
        length = headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        state = {"url": url, "validator": headers.get("ETag") or headers.get("Last-Modified"), "total": total}
        appended = response.status == 206
        if appended:
            sent = _RANGE.fullmatch(headers.get("Content-Range") or "")
            state["total"] = total = int(sent[3]) if sent else None
            # A server that does not know If-Range sends the end of whatever it has now.
            if not sent or (int(sent[1]), int(sent[2]) + 1) != (start, total) or _differ(before, state):
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another range than requested, or of a file that changed")
            listener.say(f"{remote.name}: resuming at byte {start}")
        elif total is None and remote.digest is None and headers.get("Transfer-Encoding") != "chunked":
            raise ValueError("neither the server nor a digest says how long the file is, so nothing shows it is whole")
        else:
            start = 0
        _state_of(part).write_text(json.dumps(state))
        done = start
        with part.open("ab" if appended else "wb") as file:
            # Not `read`, which waits until a chunk is full.
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                listener.progress(remote.name, done, total)
                if time.monotonic() > ends:
                    raise _LateError(f"too slow: {done} of {total or 'unknown'} bytes when the time was over")
        if total is not None and done < total:
            raise ConnectionError(f"broke off after {done} of {total} bytes")
        return {"host": urllib.parse.urlsplit(response.url).hostname, "etag": headers.get("ETag")}


_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def _differ(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return any(before.get(key) and now[key] and before[key] != now[key] for key in ("validator", "total"))


def _resume_from(url: str, part: Path, remote: Remote, request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
    """The byte to resume at, and what the server said of the file then; sets the request's headers."""
    if not part.is_file() or part.stat().st_size == 0:
        return 0, {}
    try:
        state = read_json(_state_of(part))
    except SegbenchError:
        state = {}
    if state.get("url") != url:
        state = {}
    validator = state.get("validator")
    strong = validator if isinstance(validator, str) and not validator.startswith("W/") else None
    if strong is None and remote.digest is None:
        # Nothing would verify that both halves are of one file.
        return 0, {}
    request.add_header("Range", f"bytes={part.stat().st_size}-")
    if strong:
        request.add_header("If-Range", strong)
    return part.stat().st_size, state


def _open(request: urllib.request.Request, part: Path, start: int, redirects: _Redirects) -> Any:
    opener = urllib.request.build_opener(redirects)
    try:
        return opener.open(request, timeout=_READ_S)
    except urllib.error.HTTPError as error:
        # The part is as long as the file, or longer.
        if error.code != 416 or not start:
            raise
        error.close()
        part.unlink()
        request.remove_header("Range")
        request.remove_header("If-range")
        return opener.open(request, timeout=_READ_S)
