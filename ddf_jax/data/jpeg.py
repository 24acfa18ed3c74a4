"""Leaves out the lower rows of a JPEG, which are decoded last."""

_END = b"\xff\xd9"
_SEQUENTIAL = (0xC0, 0xC1)  # the frame headers of files whose rows come one after the other
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def upper_rows(data: bytes, rows: int) -> bytes:
    """The file with so many rows; as it is where its rows do not come one after the other, or where its end is missing,
    so that a truncated file is found to be one.

    Only the number of rows in the frame's header differs: a decoder stops there. `rows` must be whole blocks, and all
    but the last block have their pixels: the chroma of the last, where it is subsampled, has no neighbours below.

    Reference: ITU-T T.81, Section B.2.2.
    """
    start = _frame_header(data) if data.endswith(_END) else 0
    return data[: start + 5] + rows.to_bytes(2, "big") + data[start + 7 :] if start else data


def _frame_header(data: bytes) -> int:
    """Where the marker of a sequential frame is, 0 where there is none."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAMES:
            return position if marker in _SEQUENTIAL else 0
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0
