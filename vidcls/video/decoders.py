"""The decoders by name, in the order in which ``auto`` tries them.

To add one: a class with `available`, `misfit` and `read` in a file of its own here, and one line in `DECODERS`. One
without misfit must be among them. decord comes second because it is nowhere as fast as PyAV: it took 1.3 to 5 times
the processor time on every codec that was measured (`benchmarks/decoders.py`).
Imports no decoder before it is asked for; `vidcls.video.worker` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vidcls.video.index import Index

# name → its class
DECODERS = {
    "pyav": "vidcls.video.pyav_decoder:PyAVDecoder",
    "decord": "vidcls.video.decord_decoder:DecordDecoder",
}

Picture: TypeAlias = "npt.NDArray[np.uint8]"


class Scaling(NamedTuple):
    """A size that a decoder may scale pictures to as it converts their colors.

    Attributes:
        height: Of the picture as it is shown, in pixels.
        width: Of the picture as it is shown, in pixels.
        kernel: FFmpeg's name of it, such as ``BILINEAR``.
    """

    height: int
    width: int
    kernel: str


class DecodeError(Exception):
    """One decoder could not read the file; another may."""


class Decoder(Protocol):
    """What reads the frames of an indexed file.

    Args:
        index: The file.
        threads: How many threads may decode; None for as many as make one clip fast.

    Attributes:
        title: The library's name as people write it.
        warnings: Sentences for a person, complete when ``read`` has ended.
    """

    title: str
    warnings: list[str]

    def __init__(self, index: Index, threads: int | None = None) -> None: ...

    @staticmethod
    def available() -> bool:
        """Whether the library is installed."""

    @staticmethod
    def misfit(index: Index) -> str:
        """Why it would not deliver this file's frames exactly, or only slowly; empty where it does deliver them."""

    def read(self, wanted: Sequence[int], scaling: Scaling | None = None) -> Iterator[tuple[int, Picture]]:
        """Yields (number, picture (h, w, 3) uint8 RGB, turned as it is shown) for sorted frame numbers.

        Args:
            wanted: Frame numbers.
            scaling: The size that the caller would scale pictures to; those of another size are scaled by the caller.

        Raises:
            DecodeError: Another decoder should be tried.
        """


def decoder_class(name: str) -> type[Decoder]:
    """The class of one of `DECODERS`."""
    return resolve_name(DECODERS[name])


def choose(index: Index, decoder: str, without: Sequence[str] = ()) -> list[str]:
    """Names of the decoders to try in turn for a file.

    Args:
        index: The file.
        decoder: ``auto`` or one of `DECODERS`, which then is the only one.
        without: Decoders that have failed on it.
    """
    if decoder != "auto":
        return [decoder]
    classes = {name: decoder_class(name) for name in DECODERS if name not in without}
    return [name for name, known in classes.items() if known.available() and not known.misfit(index)]
