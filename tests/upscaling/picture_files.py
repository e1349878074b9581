"""Picture files of all kinds, written by Pillow, and 16-bit ones by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def smooth(height: int, width: int, channels: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Return a picture of soft waves, different in each channel."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (4 + c) + seed) * np.cos(columns / (7 - c)) for c in range(channels)]
    return ((np.stack(waves, 2) * 0.45 + 0.5) * np.iinfo(dtype).max).astype(dtype)


def write_png16(path: Path, pixels: np.ndarray) -> Path:
    """Write 16-bit PNG, from the format's specification: no filter, big-endian samples."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = np.concatenate(
        [np.zeros((height, 1), np.uint8), pixels.astype(">u2").view(np.uint8).reshape(height, -1)], 1
    )

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines.tobytes())), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def read_png16(path: Path) -> np.ndarray:
    """Return the 16-bit samples of a PNG; its filters are undone as the specification says."""
    data = path.read_bytes()
    place, packed, header = 8, b"", b""
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        header = body if name == b"IHDR" else header
        packed += body if name == b"IDAT" else b""
        place += 12 + length
    width, height, bits, kind = struct.unpack(">IIBB", header[:10])
    assert bits == 16
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[kind]
    step = 2 * channels
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * step)
    above = np.zeros(width * step + step, int)
    found = []
    for line in lines:
        row = np.zeros(width * step + step, int)
        for i in range(step, len(row)):
            left, up, corner = row[i - step], above[i], above[i - step]
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(value - guess))
            predicted = (0, left, up, (left + up) // 2, nearest)[line[0]]
            row[i] = (int(line[1 + i - step]) + predicted) % 256
        found.append(row[step:].astype(np.uint8))
        above = row
    return np.stack(found).view(">u2").reshape(height, width, channels).astype(np.uint16)


def write(path: Path, height: int = 20, width: int = 30, mode: str = "RGB", **options: object) -> Path:
    """Write a picture of soft waves with Pillow."""
    Image.fromarray(smooth(height, width, 3)).convert(mode).save(path, **options)
    return path
