"""Renders a clip and its ground truth: OUT.mp4 and OUT.json.

    python make_video.py OUT.mp4 [--seed 9001] [--seconds 20] [--fps 25]

Needs the `ffmpeg` executable with libx264. `demo1.mp4` is seed 9001, 20 seconds, 25 fps.
Seeds from 100000 to 102000 are the training set of `street.onnx`: test on others.
"""

import argparse
import json
import pathlib
import subprocess

from scene import CLASSES, Scene

WIDTH, HEIGHT = 640, 360
# Enough that some are always on the frame and some hide others.
OBJECTS = 8
TRUTH_FIELDS = "id,cls,x0,y0,x1,y1,visible"


def encoder(path, fps, crf):
    """An ffmpeg process that turns raw frames on its standard input into H.264."""
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(fps), "-i", "-"]
    h264 = ["-c:v", "libx264", "-preset", "slow", "-crf", str(crf), "-pix_fmt", "yuv420p", "-g", str(fps * 2)]
    command = ["ffmpeg", "-v", "error", "-y", *raw, *h264, "-movflags", "+faststart", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def truth_row(truth):
    """One object as in the JSON file, rounded to a tenth of a pixel."""
    numbers = (truth.x0, truth.y0, truth.x1, truth.y1, truth.visible)
    return [truth.id, truth.cls, *(round(float(n), 1) for n in numbers)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=9001)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--crf", type=int, default=28, help="x264 quality, lower is better")
    args = parser.parse_args()

    scene = Scene(args.seed, WIDTH, HEIGHT, count=OBJECTS)
    frames = []
    with encoder(args.out, args.fps, args.crf) as ffmpeg:
        for _ in range(int(args.seconds * args.fps)):
            image, truth = scene.render()
            ffmpeg.stdin.write(image.tobytes())
            frames.append([truth_row(t) for t in truth])
            scene.step(1 / args.fps)
    if ffmpeg.returncode != 0:
        raise SystemExit(f"ffmpeg failed with exit code {ffmpeg.returncode}")

    document = {"width": WIDTH, "height": HEIGHT, "fps": args.fps, "names": CLASSES,
                "format": TRUTH_FIELDS, "frames": frames}
    args.out.with_suffix(".json").write_text(json.dumps(document, separators=(",", ":")))
    print(f"{args.out}: {len(frames)} frames")


if __name__ == "__main__":
    main()
