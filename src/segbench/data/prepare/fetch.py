"""Download files: resumed after interruptions, from mirrors in turn, checked against a published or recorded digest.

urllib and not pooch: a download of two gigabytes must resume after a lost connection, and pooch starts over.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from segbench.data.prepare.downloads import RECORD, SILENT, Listener, Record, Remote, digest_of
from segbench.errors import SegbenchError

_CHUNK = 2**20


def fetch(
    remote: Remote,
    folder: Path,
    listener: Listener = SILENT,
    mirror: str | None = None,
    attempts: int = 4,
    wait: float = 2.0,
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
            _download_with_retries(url, remote, folder, listener, attempts, wait)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {_reason(error)}")
            listener.say(f"{remote.name}: {failures[-1]}")
            continue
        listener.say(f"{remote.name}: fetched, {target.stat().st_size} bytes")
        return target
    expected = _expected(remote, folder)
    raise SegbenchError(
        f"{remote.name} cannot be fetched: " + "; ".join(failures),
        f"the file {target}" + (f" with {expected}" if expected else ", whose digest nobody published"),
        f"run the command again (it resumes); or fetch {remote.urls[0]} by other means, put it into {folder} as "
        f"{remote.name} and run the command again" + (f". {remote.terms}" if remote.terms else ""),
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


def _verify(remote: Remote, path: Path, folder: Path, url: str = "placed by hand") -> None:
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
        Record(folder).update(
            remote.name, url=url, bytes=path.stat().st_size, sha256=sha256, published=remote.digest, unpacked=False
        )


def _download_with_retries(
    url: str, remote: Remote, folder: Path, listener: Listener, attempts: int, wait: float
) -> None:
    part = folder / f"{remote.name}.part"
    for attempt in range(attempts):
        last = attempt == attempts - 1
        resumed = part.is_file()
        try:
            _download(url, part, remote, listener)
            _verify(remote, part, folder, url)
        except urllib.error.HTTPError as error:
            error.close()
            if last or (error.code < 500 and error.code != 429):
                raise
        except urllib.error.URLError:
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
        except (OSError, http.client.HTTPException):
            if last:
                raise
        else:
            os.replace(part, folder / remote.name)
            _state_of(part).unlink(missing_ok=True)
            return
        time.sleep(wait * 2**attempt)


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _download(url: str, part: Path, remote: Remote, listener: Listener) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("neither http nor https")
    request = urllib.request.Request(url, headers={"User-Agent": "segbench", "Accept-Encoding": "identity"})
    start = _resume_from(url, part, remote, request)
    with _open(request, part, start) as response:
        sent = str(response.headers.get("Content-Range") or "")
        appended = response.status == 206 and sent.startswith(f"bytes {start}-")
        if not appended:
            if response.status == 206:
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another range than requested")
            start = 0
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        _state_of(part).write_text(json.dumps({"url": url, "validator": validator}))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if start:
            listener.say(f"{remote.name}: resuming at byte {start}")
        done = start
        with part.open("ab" if appended else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                listener.progress(remote.name, done, total)
    if total is not None and done < total:
        raise ConnectionError(f"broke off after {done} of {total} bytes")


def _resume_from(url: str, part: Path, remote: Remote, request: urllib.request.Request) -> int:
    """The byte to resume at; sets the request's headers."""
    if not part.is_file() or part.stat().st_size == 0:
        return 0
    try:
        state = json.loads(_state_of(part).read_text())
    except (OSError, ValueError):
        state = {}
    validator = state.get("validator") if state.get("url") == url else None
    strong = validator if validator and not validator.startswith("W/") else None
    if strong is None and remote.digest is None:
        # Nothing would verify that both halves are of one file.
        return 0
    request.add_header("Range", f"bytes={part.stat().st_size}-")
    if strong:
        request.add_header("If-Range", strong)
    return part.stat().st_size


def _open(request: urllib.request.Request, part: Path, start: int) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        # The part is as long as the file, or longer.
        if error.code != 416 or not start:
            raise
        error.close()
        part.unlink()
        request.remove_header("Range")
        request.remove_header("If-range")
        return urllib.request.urlopen(request, timeout=60)
