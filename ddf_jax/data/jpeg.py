"""Leaves out the lower rows of a JPEG, which are decoded last."""

from typing import NamedTuple

_END = b"\xff\xd9"
_SEQUENTIAL = (0xC0, 0xC1)  # the frame headers of files whose rows come one after the other
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


class Frame(NamedTuple):
    """What the header of a sequential frame states.

    Args:
        start: where its marker is in the file.
        height: rows of pixels.
        width: pixels of a row.
        block: rows that are decoded together.
    """

    start: int
    height: int
    width: int
    block: int


def sequential_frame(data: bytes) -> Frame | None:
    """The frame of a file whose rows come one after the other; None for any other, and for one whose end is missing, so
    that a truncated file is found to be one.

    Reference: ITU-T T.81, Section B.2.2.
    """
    start = _frame_header(data) if data.endswith(_END) else 0
    components = data[start + 10 : start + 10 + 3 * data[start + 9]] if start else b""
    if not components:
        return None
    height, width = (int.from_bytes(data[start + place : start + place + 2], "big") for place in (5, 7))
    return Frame(start, height, width, 8 * max(sampling & 15 for sampling in components[1::3]))


def upper_rows(data: bytes, frame: Frame, rows: int) -> bytes:
    """The file with so many rows, or a few more.

    Only the number of rows in the frame's header differs: a decoder stops there. One block more than needed is decoded,
    for the chroma of the last, where it is subsampled, has no neighbours below.
    """
    needed = (-(-rows // frame.block) + 1) * frame.block
    if needed >= frame.height:
        return data
    return data[: frame.start + 5] + needed.to_bytes(2, "big") + data[frame.start + 7 :]


def _frame_header(data: bytes) -> int:
    """Where the marker of a sequential frame is, 0 where there is none."""
    if not data.startswith(b"\xff\xd8"):
        return 0
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAMES:
            return position if marker in _SEQUENTIAL else 0
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0
