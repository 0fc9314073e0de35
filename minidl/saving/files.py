"""Files as bytes: read whole and checked, written to a temporary file, flushed to the disk and renamed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

# Keras stores a zip's members as they are. Deflate at its best makes 1,032 bytes of one: what is repacked by a user
# stays far below Keras's own limit, which is this.
MOST_EXPANSION = 100
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")


class FileFormatError(ValueError):
    """A file is not what it should be: damaged, of another kind, or with what minidl refuses. Nothing was changed."""


@contextlib.contextmanager
def reading(path: Any) -> Iterator[None]:
    """Whatever is raised inside becomes a FileFormatError that names the file."""
    try:
        yield
    except Exception as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        if not isinstance(error, ValueError):  # what the libraries raise, of which the message alone says too little
            reason = f"the file is damaged ({type(error).__name__}: {reason}); copy or save it again"
        raise FileFormatError(f"{path}: {reason}. Nothing was changed.") from error


def read_bytes(path: Any) -> bytes:
    """The whole file. Errors: FileNotFoundError; ValueError for a folder, naming what to do."""
    if os.path.isdir(path):
        raise FileFormatError(
            f"{path} is a folder. minidl reads files: of a TensorFlow SavedModel or a model saved with zipped=False, "
            f"load it in Keras and save it there as model.save('name.keras')."
        )
    with open(path, "rb") as file:
        return file.read()


def may_write(path: Any, overwrite: bool) -> bool:
    """Whether path may be written: it does not exist, overwrite is True, or the user, asked as Keras asks, says yes.

    Errors: FileExistsError where there is nobody to ask.
    """
    if overwrite or not os.path.exists(path):
        return True
    try:
        answer = input(f"[WARNING] {path} already exists - overwrite? [y/n]").strip().lower()
        while answer not in ("y", "n"):
            answer = input('Enter "y" (overwrite) or "n" (cancel).').strip().lower()
    except (EOFError, OSError):
        raise FileExistsError(
            f"{path} exists, and there is nobody to ask; pass overwrite=True or another name."
        ) from None
    return answer == "y"


def write_atomically(path: Any, data: bytes) -> None:
    """Put a file in place whole: killed at any moment, the old file or the new one is there.

    Written to .name.….tmp in the same folder, which a kill may leave behind, flushed to the disk, and renamed. A
    symbolic link is followed; the old file's permissions are kept.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    import tempfile  # slow to import, and seldom needed

    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    """Put the renaming itself on the disk, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def zipped(members: dict[str, bytes]) -> bytes:
    """The members as a zip that stores them as they are, as Keras's."""
    import zipfile  # slow to import, and seldom needed

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unzipped(data: bytes, expected: tuple[str, ...] = MEMBERS) -> dict[str, bytes]:
    """The members of a zip, each of which must be one of those expected, and all of them be there.

    Errors: ValueError for any other, for one that is there twice, encrypted, a link, or far larger than what is
    stored, and for one whose CRC is wrong.
    """
    import zipfile  # slow to import, and seldom needed

    if not data.startswith(b"PK"):
        raise ValueError("this is no zip, so no .keras file")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if sorted(names) != sorted(expected):
            raise ValueError(f"expected the members {', '.join(expected)}, each once; found {names[:10]!r}")
        for entry in entries:
            if entry.flag_bits & 1:
                raise ValueError(f"member {entry.filename!r} is encrypted")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise ValueError(f"member {entry.filename!r} is a symbolic link")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"member {entry.filename!r} is compressed by a method other than deflate")
        if sum(entry.file_size for entry in entries) > MOST_EXPANSION * len(data):
            raise ValueError(f"the members declare more than {MOST_EXPANSION} times the size of the file")
        return {entry.filename: archive.read(entry) for entry in entries}


def parsed_json(name: str, data: bytes) -> Any:
    """JSON that is a dict. Errors: ValueError for anything else, and for nesting beyond Python's stack."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} must hold a dict; got {type(found).__name__}")
    return found
