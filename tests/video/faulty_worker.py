"""A decode worker whose decord misbehaves as VIDCLS_TEST_FAULT says; run as a process by the tests."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence

from vidcls.video import decoders
from vidcls.video import worker as decode_worker
from vidcls.video.decord_decoder import DecordDecoder
from vidcls.video.pyav_decoder import PyAVDecoder


class FaultyDecoder(DecordDecoder):
    """Stands in for decord, installed or not."""

    @staticmethod
    def available() -> bool:
        return True

    def read(
        self, wanted: Sequence[int], scaling: decoders.Scaling | None = None
    ) -> Iterator[tuple[int, decoders.Picture]]:
        fault = os.environ["VIDCLS_TEST_FAULT"]
        source = PyAVDecoder(self.index).read(wanted, scaling)
        yield next(source)
        misbehave(fault)
        yield from source


class FaultyPyAV(PyAVDecoder):
    """PyAV that hangs as well."""

    def read(
        self, wanted: Sequence[int], scaling: decoders.Scaling | None = None
    ) -> Iterator[tuple[int, decoders.Picture]]:
        misbehave("hang")
        yield from super().read(wanted, scaling)


def misbehave(fault: str) -> None:
    if fault.startswith("hang"):
        if sys.platform == "win32":
            ctypes.PyDLL("kernel32").Sleep(600_000)
        else:
            ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock, as decord does
    elif fault == "crash":
        os.abort()
    elif fault == "swell":
        kept = []
        while True:
            kept.append(b"x" * (16 << 20))
    elif fault == "error":
        raise decoders.DecodeError("it stops at damaged packets")
    elif fault == "bug":
        raise ZeroDivisionError("something nobody thought of")


def main(alive: int | None, max_memory: int) -> None:
    pyav = decoders.DECODERS.pop("pyav")
    decoders.DECODERS["decord"] = "tests.video.faulty_worker:FaultyDecoder"
    decoders.DECODERS["pyav"] = pyav  # tried after decord
    if os.environ["VIDCLS_TEST_FAULT"] == "hang-both":
        decoders.DECODERS["pyav"] = "tests.video.faulty_worker:FaultyPyAV"
    decode_worker.main(alive, max_memory)
