"""Bytes of a recording made into lines of text, each within a limit; a bad line costs only itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runrails.audit.checks import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LINE_BYTES_MAX", "Readable", "packed_as", "read_lines", "text_of"]

LINE_BYTES_MAX = 64 * 1024 * 1024
"""The longest line that is read into memory: far more than any conversation."""

_BOM = b"\xef\xbb\xbf"
_PACKED = {
    b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}  # fmt: skip
_SKIP_BYTES = 1024 * 1024


class Readable(Protocol):
    """The part of a binary file that is needed."""

    def readline(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of the next line."""
        ...


def read_lines(stream: Readable, *, line_bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """The lines of a stream. One that is too long comes cut, one byte above the limit, and its rest is skipped."""
    while line := stream.readline(line_bytes_max + 1):
        if len(line) > line_bytes_max and not line.endswith(b"\n"):
            rest = b""
            while not rest.endswith(b"\n") and (rest := stream.readline(_SKIP_BYTES)):
                pass
        yield line


def packed_as(line: bytes | str) -> str | None:
    """What kind of packed file begins with that line; None for a line of text."""
    if isinstance(line, bytes):
        for begin, kind in _PACKED.items():
            if line.startswith(begin):
                return kind
    return None


def text_of(line: bytes | str, *, first: bool, line_bytes_max: int = LINE_BYTES_MAX) -> str:
    """
    A line's text without white space around it and, on the first line, without a byte order mark.

    Raises:
        Invalid: It is longer than the limit or not UTF-8.
    """
    if isinstance(line, str):
        line = line.encode("utf-8", "surrogatepass")
    if len(line.removesuffix(b"\n")) > line_bytes_max:
        raise Invalid(
            f"The line is longer than {line_bytes_max:,} bytes.", "Split the run, or shorten the tool results in it."
        )
    try:
        return (line.removeprefix(_BOM) if first else line).decode().strip()
    except UnicodeDecodeError as exc:
        raise Invalid(f"Not valid UTF-8 at byte {exc.start + 1} of the line.", "Save the file as UTF-8.") from None
