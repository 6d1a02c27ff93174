"""Reads the frames of a clip that moonkiln wrote, .safetensors or .y4m, with NumPy; and pictures, .png, through the program ffmpeg."""
import json
import struct
import subprocess
from pathlib import Path

import numpy as np


class BadClip(Exception):
    """What is wrong with a file, to be shown as it is."""


def read(path):
    """f32 [frames, height, width, 3] in -1..1."""
    path = Path(path)
    readers = {".safetensors": read_safetensors, ".y4m": read_y4m, ".png": read_column}
    if path.suffix not in readers:
        raise BadClip(f"{path}: its name must end in {' or '.join(readers)} (make one with moonkiln generate --out)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadClip(f"{path}: {error.strerror}") from None
    try:
        frames = readers[path.suffix](content)
    except (ValueError, KeyError, IndexError, TypeError, struct.error, UnicodeDecodeError) as error:
        raise BadClip(f"{path}: is not a clip: {error}") from None
    if len(frames) < 5 or min(frames.shape[1:3]) < 64:
        raise BadClip(f"{path}: {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}; at least 5 frames of 64x64 are needed")
    return frames


def read_safetensors(content):
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8:8 + length])["frames"]
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    if entry["dtype"] != "F32" or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"\"frames\" is {entry['dtype']} {shape}, not F32 [frames, height, width, 3]")
    return np.frombuffer(content[8 + length + begin:8 + length + end], "<f4").reshape(shape).copy()


def read_y4m(content):
    header, _, rest = content.partition(b"\n")
    words = header.decode("ascii").split(" ")
    if words[0] != "YUV4MPEG2":
        raise ValueError("it does not begin with YUV4MPEG2")
    fields = {w[0]: w[1:] for w in reversed(words[1:])}
    width, height = int(fields["W"]), int(fields["H"])
    if not fields.get("C", "420").startswith("420") or fields["C"][3:4] == "p" or width % 2 or height % 2:
        raise ValueError(f"colour format {fields.get('C')} of {width}x{height} is unknown; 8-bit 420 of an even size is read")
    size = width * height * 3 // 2
    out = []
    while rest:
        line, _, rest = rest.partition(b"\n")
        if not line.startswith(b"FRAME") or len(rest) < size:
            raise ValueError(f"frame {len(out)} is broken or cut short")
        planes = np.frombuffer(rest[:size], np.uint8).astype(np.float32)
        rest = rest[size:]
        luma = (planes[:width * height].reshape(height, width) - 16) / 219
        chroma = (planes[width * height:].reshape(2, height // 2, width // 2) - 128) / 224
        blue, red = chroma.repeat(2, 1).repeat(2, 2)
        r, b = luma + 1.402 * red, luma + 1.772 * blue  # BT.601
        out.append(np.stack([r, (luma - 0.299 * r - 0.114 * b) / 0.587, b], -1) * 2 - 1)
    return np.stack(out)


def ffmpeg(arguments, content):
    """What the program writes for what it reads."""
    try:
        run = subprocess.run(["ffmpeg", "-v", "error", *arguments], input=content, capture_output=True)
    except FileNotFoundError:
        raise BadClip("the program ffmpeg is missing; pictures are read and written through it") from None
    if run.returncode:
        raise ValueError(run.stderr.decode(errors="replace").strip())
    return run.stdout


def read_column(content):
    """A picture of square frames, one below the other."""
    width, height = struct.unpack_from(">II", content, 16)
    pixels = ffmpeg(["-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], content)
    if height % width:
        raise ValueError(f"a picture of {width}x{height} is no column of square frames")
    return np.frombuffer(pixels, np.uint8).reshape(height // width, width, width, 3).astype(np.float32) / 127.5 - 1


def to_bytes(frames):
    """Frames in -1..1 as bytes, rounded."""
    return np.rint((np.clip(frames, -1, 1) + 1) * 127.5).astype(np.uint8)


def write_png(path, picture):
    """picture: bytes [height, width, 3]."""
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    options = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "-", "-pred", "mixed", "-compression_level", "100",
               "-f", "image2pipe", "-c:v", "png", "-"]
    Path(path).write_bytes(ffmpeg(options, np.ascontiguousarray(picture).tobytes()))
