"""Compares what vidcls decodes with the ffmpeg command, over every container and codec that ffmpeg can write here.

    python benchmarks/decode_corpus.py [--only h264] [--keep FOLDER] [--decoder auto]

Each clip is made with ffmpeg, then read three ways: by ``ffmpeg -fps_mode passthrough`` (the reference), by vidcls in
one pass, and by vidcls one frame at a time in random order. Reported is every clip where the number of frames,
the pictures, the frame rate or the times differ. Needs the ffmpeg and ffprobe commands, version 5.1 or newer.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.clips import number_frame, set_matrix
from vidcls.errors import VideoError
from vidcls.video.reader import VideoInfo, VideoReader

SIZE = (120, 160)  # h, w; pixels
FRAMES = 50
FPS = 25
PIXELS = 2.5  # gray levels by which pictures may differ on average: two versions of FFmpeg's scaler

ANY = "mp4 mov mkv avi nut"
WIDE = f"{ANY} ts mpg flv wmv webm ogg 3gp mxf"

# name → codec's arguments, containers
CODECS: dict[str, tuple[str, str]] = {
    "h264": ("-c:v libx264 -pix_fmt yuv420p", f"{WIDE} h264 m4v f4v vob"),
    "h264-no-b": ("-c:v libx264 -pix_fmt yuv420p -bf 0 -g 12", WIDE),
    "h264-b": ("-c:v libx264 -pix_fmt yuv420p -bf 3 -g 12", WIDE),
    "h264-open-gop": ("-c:v libx264 -pix_fmt yuv420p -bf 3 -g 12 -x264-params open-gop=1:scenecut=0", WIDE),
    "h264-intra-refresh": ("-c:v libx264 -pix_fmt yuv420p -g 12 -bf 0 -intra-refresh 1", WIDE),
    "h264-intra-refresh-b": ("-c:v libx264 -pix_fmt yuv420p -g 12 -bf 2 -intra-refresh 1", WIDE),
    "h264-interlaced": ("-c:v libx264 -pix_fmt yuv420p -g 12 -bf 2 -flags +ilme+ildct", WIDE),
    "h264-pyramid": ("-c:v libx264 -pix_fmt yuv420p -g 16 -bf 8 -x264-params b-pyramid=strict", WIDE),
    "h264-zero-latency": ("-c:v libx264 -pix_fmt yuv420p -g 16 -tune zerolatency", WIDE),
    "h264-10": ("-c:v libx264 -pix_fmt yuv420p10le -g 16", WIDE),
    "h264-422": ("-c:v libx264 -pix_fmt yuv422p -g 16", WIDE),
    "h264-rgb": ("-c:v libx264rgb -pix_fmt rgb24 -g 16", ANY),
    "h264-gray": ("-c:v libx264 -pix_fmt gray -g 16", ANY),
    "hevc": ("-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none -g 12", f"{WIDE} hevc"),
    "hevc-closed": ("-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:open-gop=0 -g 12", WIDE),
    "hevc-no-b": ("-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:bframes=0 -g 12", WIDE),
    "hevc-intra-refresh": (
        "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:intra-refresh=1:bframes=0 -g 12",
        WIDE,
    ),
    "hevc-10": ("-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none -g 12", WIDE),
    "mpeg1": ("-c:v mpeg1video -g 12 -q:v 3", f"{WIDE} m1v"),
    "mpeg1-b": ("-c:v mpeg1video -g 12 -bf 2 -q:v 3", f"{WIDE} m1v"),
    "mpeg2": ("-c:v mpeg2video -g 12 -q:v 3", f"{WIDE} m2v vob dvd"),
    "mpeg2-b": ("-c:v mpeg2video -g 12 -bf 2 -q:v 3", f"{WIDE} m2v vob dvd"),
    "mpeg2-closed": ("-c:v mpeg2video -g 12 -bf 2 -flags +cgop -sc_threshold 1000000000 -q:v 3", WIDE),
    "mpeg2-interlaced": ("-c:v mpeg2video -g 12 -bf 2 -flags +ilme+ildct -q:v 3", WIDE),
    "mpeg2-422": ("-c:v mpeg2video -g 12 -pix_fmt yuv422p -q:v 3", "ts mpg mkv"),
    "mpeg4": ("-c:v mpeg4 -g 12 -q:v 3", f"{WIDE} m4v"),
    "mpeg4-b": ("-c:v mpeg4 -g 12 -bf 2 -q:v 3", f"{WIDE} m4v"),
    "mpeg4-packed": ("-c:v mpeg4 -g 12 -bf 2 -q:v 3 -vtag DIVX", "avi mkv"),
    "xvid": ("-c:v libxvid -g 12 -q:v 3", ANY),
    "xvid-b": ("-c:v libxvid -g 12 -bf 2 -q:v 3", ANY),
    "vp8": ("-c:v libvpx -g 12 -deadline realtime -b:v 400k", "webm mkv avi ogg nut"),
    "vp8-altref": ("-c:v libvpx -g 24 -auto-alt-ref 1 -lag-in-frames 16 -b:v 400k", "webm mkv avi ogg nut ivf"),
    "vp9": ("-c:v libvpx-vp9 -g 12 -deadline realtime -cpu-used 8 -b:v 400k", "webm mkv mp4 avi ogg nut ivf"),
    "vp9-altref": (
        "-c:v libvpx-vp9 -g 24 -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 5 -b:v 400k",
        "webm mkv mp4 avi nut ivf",
    ),
    "vp9-alpha": ("-c:v libvpx-vp9 -pix_fmt yuva420p -g 12 -deadline realtime -cpu-used 8 -b:v 400k", "webm mkv"),
    "av1": ("-c:v libsvtav1 -preset 12 -g 12 -crf 40", "mp4 mkv webm ivf obu avi nut"),
    "av1-aom": ("-c:v libaom-av1 -cpu-used 8 -g 12 -lag-in-frames 10 -crf 40", "mp4 mkv webm ivf obu"),
    "mjpeg": ("-c:v mjpeg -pix_fmt yuvj420p -q:v 3", f"{WIDE} mjpeg"),
    "mjpeg-422": ("-c:v mjpeg -pix_fmt yuvj422p -q:v 3", ANY),
    "ljpeg": ("-c:v ljpeg -strict -1", "avi mkv mov"),
    "jpeg2000": ("-c:v jpeg2000 -q:v 3", "mov mkv avi mxf mp4"),
    "jpegls": ("-c:v jpegls", "avi mkv"),
    "png": ("-c:v png", "mov mkv avi mp4 nut"),
    "apng": ("-c:v apng", "apng"),
    "gif": ("-c:v gif", "gif mov mkv avi"),
    "bmp": ("-c:v bmp", "avi mkv mov nut"),
    "tiff": ("-c:v tiff", "mov avi mkv"),
    "targa": ("-c:v targa", "mov avi mkv"),
    "qtrle": ("-c:v qtrle -g 12", "mov mkv nut"),
    "qtrle-gray": ("-c:v qtrle -pix_fmt gray -g 12", "mov mkv nut"),
    "qtrle-555": ("-c:v qtrle -pix_fmt rgb555be -g 12", "mov mkv"),
    "qtrle-argb": ("-c:v qtrle -pix_fmt argb -g 12", "mov mkv"),
    "raw": ("-c:v rawvideo -pix_fmt yuv420p", "avi mkv mov nut y4m"),
    "raw-pal8": ("-c:v rawvideo -pix_fmt pal8", "avi mkv mov nut"),
    "raw-rgb": ("-c:v rawvideo -pix_fmt rgb24", "avi mkv mov nut"),
    "raw-bgr": ("-c:v rawvideo -pix_fmt bgr24", "avi mkv mov nut"),
    "raw-gray": ("-c:v rawvideo -pix_fmt gray", "avi mkv mov nut"),
    "raw-yuyv": ("-c:v rawvideo -pix_fmt yuyv422", "avi mkv mov nut"),
    "ffv1": ("-c:v ffv1 -g 12", "avi mkv mov nut mp4 mxf"),
    "ffv1-1": ("-c:v ffv1 -level 1 -g 12 -context 1", "avi mkv"),
    "ffvhuff": ("-c:v ffvhuff", "avi mkv mov"),
    "huffyuv": ("-c:v huffyuv", "avi mkv mov"),
    "utvideo": ("-c:v utvideo", "avi mkv mov"),
    "magicyuv": ("-c:v magicyuv", "avi mkv mov"),
    "prores": ("-c:v prores_ks", "mov mkv mxf mp4"),
    "dnxhd": ("-c:v dnxhd -profile:v dnxhr_sq -pix_fmt yuv422p -s 256x128", "mov mkv mxf mp4"),
    "cfhd": ("-c:v cfhd", "mov mkv avi"),
    "wmv1": ("-c:v wmv1 -g 12 -b:v 500k", "wmv asf avi mkv"),
    "wmv2": ("-c:v wmv2 -g 12 -b:v 500k", "wmv asf avi mkv mov"),
    "msmpeg4v2": ("-c:v msmpeg4v2 -g 12 -q:v 3", "wmv asf avi mkv mov"),
    "msmpeg4v3": ("-c:v msmpeg4 -g 12 -q:v 3", "wmv asf avi mkv mov"),
    "flv1": ("-c:v flv -g 12 -q:v 3", "flv avi mkv mov"),
    "flashsv": ("-c:v flashsv -g 12", "flv avi mkv"),
    "flashsv2": ("-c:v flashsv2 -g 12", "flv"),
    "theora": ("-c:v libtheora -g 12 -q:v 6", "ogg ogv mkv avi"),
    "cinepak": ("-c:v cinepak -g 12", "avi mov mkv"),
    "msvideo1": ("-c:v msvideo1 -g 12", "avi mkv"),
    "msrle": ("-c:v msrle", "avi"),
    "zmbv": ("-c:v zmbv -g 12", "avi mkv mov"),
    "h261": ("-c:v h261 -s 176x144 -q:v 3", "avi mkv mov h261"),
    "h263": ("-c:v h263 -s 176x144 -q:v 3 -g 12", "3gp mp4 avi mkv mov h263"),
    "h263p": ("-c:v h263p -q:v 3 -g 12", "avi mkv mov 3gp"),
    "rv10": ("-c:v rv10 -q:v 3 -g 12", "rm mkv"),
    "rv20": ("-c:v rv20 -q:v 3 -g 12", "rm mkv"),
    "svq1": ("-c:v svq1 -g 12", "mov mkv avi"),
    "snow": ("-c:v snow -strict -2 -g 12", "avi mkv nut"),
    "asv1": ("-c:v asv1", "avi"),
    "asv2": ("-c:v asv2", "avi"),
    "dirac": ("-c:v vc2", "mkv mov ts ogg mxf"),
    "v210": ("-c:v v210 -pix_fmt yuv422p10le", "avi mov mkv"),
    "v410": ("-c:v v410 -pix_fmt yuv444p10le", "avi mov mkv"),
    "r210": ("-c:v r210 -pix_fmt gbrp10le", "avi mov mkv"),
    "dv": ("-c:v dvvideo -s 720x576 -pix_fmt yuv420p", "dv avi mov mkv"),
    "hap": ("-c:v hap", "mov avi mkv"),
    "speedhq": ("-c:v speedhq -pix_fmt yuv422p", "avi mov"),
    "amv": ("-c:v amv -pix_fmt yuvj420p -s 160x128", "avi"),
    "xwd": ("-c:v xwd -pix_fmt rgb24", "avi nut"),
    "sgi": ("-c:v sgi", "nut mkv"),
}  # fmt: skip

# Ways of timing and cutting that any codec may meet; name → (arguments before the codec's, a codec, its containers)
WAYS = {
    "vfr": (["-vf", "setpts=PTS+floor(N/7)*0.06/TB", "-fps_mode", "vfr", "-enc_time_base", "1/1000"], f"{ANY} ts webm"),
    "fps-50": (["-r", "50"], ANY + " ts flv mpg wmv"),
    "fps-ntsc": (["-r", "30000/1001"], ANY + " ts flv mpg wmv ogg"),
    "fps-1": (["-r", "1"], ANY + " ts flv wmv"),
    "fps-120": (["-r", "120"], ANY + " ts flv"),
    "odd": (["-s", "97x71"], ANY),
    "late": (["-output_ts_offset", "7.3"], ANY + " ts flv mpg"),
    "sound": ([], ANY + " ts flv wmv mpg"),
}  # fmt: skip


ONE = 0x10000
MATRICES = {
    "h-flip": (-ONE, 0, 0, ONE),
    "v-flip": (ONE, 0, 0, -ONE),
    "90": (0, ONE, -ONE, 0),
    "180": (-ONE, 0, 0, -ONE),
    "270": (0, -ONE, ONE, 0),
    "transpose": (0, ONE, ONE, 0),
    "anti-transpose": (0, -ONE, -ONE, 0),
    "zero": (0, 0, 0, 0),
    "45": (46341, 46341, -46341, 46341),
    "1": (65526, 1144, -1144, 65526),
}


class Clip(NamedTuple):
    """One clip of the corpus, the command that makes it, and what is done to the file then."""

    name: str
    command: list[str]
    patch: Callable[[Path], object] | None = None


def corpus(folder: Path, only: str) -> Iterator[Clip]:
    """Every clip whose name contains ``only``."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[1]}x{SIZE[0]}", "-r", str(FPS), "-i", "-"]
    for name, (codec, containers) in CODECS.items():
        for suffix in containers.split():
            clip = f"{name}.{suffix}"
            if only in clip:
                yield Clip(clip, [*raw, *codec.split(), str(folder / clip)])
    for way, (extra, containers) in WAYS.items():
        sound = ["-f", "lavfi", "-i", "sine=d=2", "-shortest"] if way == "sound" else []
        for name in ("h264", "h264-b", "mpeg4", "mpeg4-b", "vp9", "mjpeg", "hevc"):
            for suffix in containers.split():
                clip = f"{way}-{name}.{suffix}"
                if only in clip:
                    yield Clip(clip, [*raw, *sound, *extra, *CODECS[name][0].split(), str(folder / clip)])
    for name, (a, b, c, d) in MATRICES.items():
        matrix = (a, b, 0, c, d, 0, 0, 0, 0x40000000)
        for suffix in ("mp4", "mov"):
            clip = f"matrix-{name}.{suffix}"
            if only in clip:
                command = [*raw, *CODECS["h264-b"][0].split(), str(folder / clip)]
                yield Clip(clip, command, partial(set_matrix, matrix=matrix))
    for suffix in ("ts", "flv", "mpg"):
        for name in ("h264-b", "mpeg2-b", "h264-intra-refresh"):
            clip = f"twice-{name}.{suffix}"
            if only in clip:
                yield Clip(clip, [*raw, *CODECS[name][0].split(), str(folder / clip)], twice)


def twice(path: Path) -> None:
    """Puts a file's bytes after themselves, as recordings are joined."""
    data = path.read_bytes()
    path.write_bytes(data + data[13 if path.suffix == ".flv" else 0 :])


def make(clip: Clip, pictures: bytes) -> bool:
    """Whether ffmpeg could write the clip, which then is there."""
    command = ["ffmpeg", "-v", "error", "-y", *clip.command]
    path = Path(clip.command[-1])
    if not path.exists():
        done = subprocess.run(command, input=pictures, capture_output=True, check=False)
        if done.returncode:
            path.unlink(missing_ok=True)
        elif clip.patch:
            clip.patch(path)
    return path.exists() and path.stat().st_size > 0


def by_ffmpeg(path: Path, size: tuple[int, int], stream: str = "v:0") -> np.ndarray:
    """All frames (t, h, w, 3) uint8 RGB, as the ffmpeg command delivers them."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:{stream}", "-fps_mode", "passthrough"]
    command += ["-s", f"{size[1]}x{size[0]}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    out = subprocess.run(command, capture_output=True, check=False).stdout
    return np.frombuffer(out, np.uint8).reshape(-1, *size, 3)


def times_by_ffprobe(path: Path) -> np.ndarray:
    """Seconds (t,) from the first frame, as ffprobe has them; NaN where it has none."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries"]
    command += ["frame=best_effort_timestamp_time", "-of", "csv=p=0", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    times = [float(line.split(",")[0]) if line[0].isdigit() or line[0] == "-" else np.nan for line in lines]
    return np.array(times) - (times[0] if times else 0)


def differences(path: Path, reader: VideoReader, rng: random.Random) -> list[str]:
    """What vidcls has otherwise than ffmpeg, or otherwise one by one than in one pass."""
    try:
        info = reader.open(path)
        got = reader.read(range(info.num_frames))
    except VideoError as error:
        return [f"refused: {error.problem}"]
    wanted = by_ffmpeg(path, (info.height, info.width))
    found = (
        [f"{len(wanted)} frames by ffmpeg, {info.num_frames} here"] if len(wanted) != info.num_frames else []
    )
    count = min(len(wanted), info.num_frames)
    apart = np.array([np.abs(a.astype(int) - b).mean() for a, b in zip(got.frames[:count], wanted[:count])])  # noqa: B905
    if count and (apart > PIXELS).any():
        found.append(
            f"{(apart > PIXELS).sum()} of {count} pictures differ, the first is {np.argmax(apart > PIXELS)}"
        )
    found += timing(info, times_by_ffprobe(path)[:count])
    for index in rng.sample(range(info.num_frames), min(info.num_frames, 12)):
        try:
            same = np.array_equal(reader.read([index]).frames[0], got.frames[index])
        except VideoError as error:
            found.append(f"frame {index} alone is refused: {error.problem}")
            break
        if not same:
            found.append(f"frame {index} alone differs from one pass")
            break
    notes = [*info.warnings, *got.warnings]
    return found + [f"warns: {note}" for note in notes] if found or notes else []


def timing(info: VideoInfo, times: np.ndarray) -> list[str]:
    """Where times and rate differ."""
    found = []
    if not 0.1 <= info.fps <= 1000:
        found.append(f"{info.fps:g} frames a second")
    if np.isnan(times).any() or len(times) != info.num_frames:
        return found
    late = np.abs(info.timestamps - times).max()
    if late > 2e-3:
        found.append(f"times differ by up to {late:.3f} s (fps {info.fps:g})")
    return found


def main() -> None:
    """Prints one line per clip that differs, and counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of the names of the clips to make")
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the clips, which are made once")
    arguments = parser.parse_args()
    pictures = b"".join(number_frame(n, *SIZE).tobytes() for n in range(FRAMES))
    counts = {"same": 0, "different": 0, "not made": 0}
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary, VideoReader(arguments.decoder) as reader:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        for clip in corpus(folder, arguments.only):
            if not make(clip, pictures):
                counts["not made"] += 1
                continue
            found = differences(folder / clip.name, reader, rng)
            counts["different" if found else "same"] += 1
            if found:
                print(f"{clip.name}: {'; '.join(found)}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))


if __name__ == "__main__":
    main()
