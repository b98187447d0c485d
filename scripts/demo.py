"""From a video to predictions, through the REST API, and measured: `make demo`, `make demo-faces`.

Exits with 0 only if every frame came back and the detections are as good as they should be.
"""

import argparse
import collections
import json
import shutil
import signal
import subprocess
import sys
import time

import framehook
import metrics
from framehook import ROOT, Failure, Platform, shown

OUT = ROOT / "demo-out"
ASSETS = ROOT / "assets"
STAGES = ("decode", "pre", "inference", "post")

# As in assets/make/evaluate.py, so that the figures compare; low, because average precision wants the whole curve.
CURVE_SCORE, NMS_IOU = 0.05, 0.5
# What a person wants to see: objects that are probably there.
SHOWN_SCORE = 0.35
# A crossing should not be counted on a guess.
TRACK_SCORE = 0.5
# The model reaches 0.933 without Framehook (assets/README.md); losing 0.03 would be a defect.
NEEDED_MAP50 = 0.90

FACE_SCORE = 0.5
# One face on each; with plain ONNX Runtime all of them are found.
FACE_FRAMES = 120
NEEDED_FACE_FRAMES = 115


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", action="store_true", help="a real face detector on real footage")
    faces = parser.parse_args().faces
    # Whoever ends this script also wants the platform ended, in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("demo: ended"))
    try:
        run_faces() if faces else run_street()
    except Failure as failure:
        sys.exit(f"demo: {failure}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; the platform was stopped")


# --- the two demos ------------------------------------------------------------------------------

def run_street():
    """The project's own model and clip, against exact ground truth."""
    truth = json.loads((ASSETS / "demo1.json").read_text())
    folder = fresh_folder("street")
    with Platform(folder) as platform:
        say(f"Framehook runs at {platform.url}, its log is {shown(platform.log)}")
        scenario = {
            "name": "demo",
            "source": {"video": platform.upload("video", ASSETS / "demo1.mp4", name="demo1", version="1")},
            "model": platform.upload("model", ASSETS / "street.onnx", name="street", version="1"),
            "plugins": {"post": [
                {"use": platform.upload_plugin("yolo"),
                 "config": {"labels": truth["names"], "min_score": CURVE_SCORE, "iou": NMS_IOU}},
                {"use": platform.upload_plugin("line-counter"),
                 "config": {"line": [[0.5, 0.0], [0.5, 1.0]], "min_score": TRACK_SCORE}},
            ]},
        }
        view, predictions = run(platform, scenario, folder)
    annotate(ASSETS / "demo1.mp4", predictions, SHOWN_SCORE, folder)

    precisions = metrics.average_precisions(predictions, truth)
    map50 = sum(precisions) / len(precisions)
    frames = len(truth["frames"])
    print_result(view, predictions, frames, SHOWN_SCORE, folder)
    by_class = ", ".join(f"{name} {ap:.3f}" for name, ap in zip(truth["names"], precisions))
    row("mAP50", f"{map50:.3f} ({by_class})")
    check_frames(predictions, frames)
    if map50 < NEEDED_MAP50:
        raise Failure(f"mAP50 is {map50:.3f}, but at least {NEEDED_MAP50:.2f} was expected")


def run_faces():
    """A model and a clip that nobody here made."""
    cache = ROOT / ".cache" / "faces"
    model, clip = fetch_faces(cache)
    folder = fresh_folder("faces")
    with Platform(folder) as platform:
        say(f"Framehook runs at {platform.url}, its log is {shown(platform.log)}")
        scenario = {
            "name": "faces",
            "source": {"video": platform.upload("video", clip, name="carphone", version="1")},
            "model": platform.upload("model", model, name="faces", version="1"),
            "plugins": {"post": [{"use": platform.upload_plugin("centerface")}]},
        }
        view, predictions = run(platform, scenario, folder)
    annotate(clip, predictions, FACE_SCORE, folder)

    print_result(view, predictions, FACE_FRAMES, FACE_SCORE, folder)
    faces = [[d for d in p["detections"] if d["score"] > FACE_SCORE] for p in predictions]
    single = sum(len(f) == 1 for f in faces)
    row("one face", f"on {single} of {FACE_FRAMES} frames, score above {FACE_SCORE}")
    check_frames(predictions, FACE_FRAMES)
    if single < NEEDED_FACE_FRAMES:
        raise Failure(f"exactly one face was found on {single} frames, but on at least {NEEDED_FACE_FRAMES}"
                      " it was expected")


def fetch_faces(cache):
    """CenterFace and its clip; from the network only the first time."""
    model, clip = cache / "faces.onnx", cache / "carphone.mp4"
    if not (model.exists() and clip.exists()):
        requirements = ROOT / "scripts" / "requirements-faces.txt"
        made = subprocess.run([ROOT / "scripts" / "venv.sh", "faces", requirements], stdout=subprocess.PIPE, text=True)
        if made.returncode != 0:
            raise Failure("the Python environment could not be made; the reason is above")
        if subprocess.run([made.stdout.strip(), ASSETS / "make" / "faces.py", cache]).returncode != 0:
            raise Failure("the model and the clip could not be fetched from PyPI; the reason is above")
    return model, clip


# --- the run ------------------------------------------------------------------------------------

def fresh_folder(name):
    """An empty folder for everything a demo leaves."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(platform, scenario, folder):
    """Posts the scenario and follows it; gives its last view and all predictions."""
    uses = [scenario["model"], scenario["source"]["video"], *(p["use"] for p in scenario["plugins"]["post"])]
    say(f"uploaded {', '.join(uses)}")
    posted = time.monotonic()
    scenario_id = platform.json("POST", "/scenario/init", scenario)["id"]
    say(f"posted scenario {scenario_id}")
    progress = Progress()
    view = platform.follow(scenario_id, progress.show)
    progress.end()
    view["seconds"] = time.monotonic() - posted
    if view["state"] != "completed":
        raise Failure(f"the scenario is {framehook.describe(view)}; see {shown(platform.log)}")
    return view, platform.predictions(scenario_id, folder / "predictions.ndjson")


class Progress:
    """A bar on a terminal; a line a second elsewhere."""

    WIDTH = 40
    SECONDS_BETWEEN_LINES = 1

    def __init__(self):
        self.is_terminal = sys.stdout.isatty()
        self.line, self.printed_at = "", float("-inf")

    def show(self, view):
        done, total = view["progress"]["frames"], view["progress"]["frames_total"]
        share = min(1.0, done / total) if total else 0.0
        bar = ("#" * round(share * self.WIDTH)).ljust(self.WIDTH, "-")
        speed = f", {view['fps']:.0f} fps" if view.get("fps") else ""
        line = f"    [{bar}] {done} of {total or '?'} frames, {100 * share:.0f} %{speed}, {view['state']}"
        if self.is_terminal:
            print("\r" + line.ljust(len(self.line)), end="", flush=True)
        elif view["state"] in framehook.ENDED or time.monotonic() - self.printed_at >= self.SECONDS_BETWEEN_LINES:
            print(line, flush=True)
            self.printed_at = time.monotonic()
        self.line = line

    def end(self):
        if self.is_terminal:
            print()


def annotate(clip, predictions, score, folder):
    """Draws what is probably there on the clip."""
    say("drawing the detections on the clip")
    file = folder / "shown.ndjson"
    with file.open("w") as out:
        for prediction in predictions:
            out.write(json.dumps(with_score(prediction, score)) + "\n")
    framehook.worker("annotate", clip, file, folder / "annotated.mp4")
    file.unlink()


def with_score(prediction, score):
    """The prediction without the detections below `score`; events point at what remains."""
    kept = [i for i, d in enumerate(prediction["detections"]) if d["score"] >= score]
    renumbered = {old: new for new, old in enumerate(kept)}
    events = [{**e, "subjects": [renumbered[s] for s in e.get("subjects", []) if s in renumbered]}
              for e in prediction["events"]]
    return {**prediction, "detections": [prediction["detections"][i] for i in kept], "events": events}


# --- the result ---------------------------------------------------------------------------------

def print_result(view, predictions, frames, score, folder):
    """What every demo tells."""
    sure = [d for p in predictions for d in p["detections"] if d["score"] >= score]
    classes = collections.Counter(d.get("label") or f"class {d['class_id']}" for d in sure)
    events = collections.Counter(event_name(e) for p in predictions for e in p["events"])
    print()
    row("frames", f"{len(predictions)} of {frames}")
    row("detections", f"{len(sure)} with a score of {score} or more: {counts(classes)}")
    if events:
        row("events", counts(events))
    fps = view.get("fps") or len(predictions) / view["seconds"]
    row("speed", f"{fps:.0f} frames a second, {view['seconds']:.1f} s from the POST to the last row")
    spent = {stage: sum(p["timings"][f"{stage}_us"] for p in predictions) for stage in STAGES}
    total = max(1, sum(spent.values()))
    row("work", ", ".join(f"{stage} {100 * us / total:.0f} %" for stage, us in spent.items()))
    row("video", shown(folder / "annotated.mp4"))
    row("rows", shown(folder / "predictions.ndjson"))


def check_frames(predictions, frames):
    """Every frame once, in order."""
    if [p["frame"] for p in predictions] != list(range(frames)):
        raise Failure(f"{frames} frames should have come back, each once and in order; {len(predictions)} rows did,"
                      f" for {len({p['frame'] for p in predictions})} different frames")


def event_name(event):
    """Its kind, and its direction if it has one."""
    return " ".join([event["kind"], *event.get("attributes", {}).get("direction", "").split()])


def counts(counter):
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"


def row(name, text):
    print(f"    {name:12}{text}", flush=True)


def say(text):
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    main()
