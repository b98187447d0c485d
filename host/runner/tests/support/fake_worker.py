#!/usr/bin/env python3
"""Speaks the worker's protocol and misbehaves as told: the source of its job is a JSON plan.

    frames            how many frames the source has
    crash_at          frames before which it dies, unless it was started there
    torn_at, garbage_at, silent_at, back_at, large_at    the same, with other misdeeds
    always_crash_at   a frame before which it always dies
    nothing           ends without a frame
    out_of_memory     dies as one does whose runtime was refused memory
    lanes_out_of_memory    the same before that frame, if it has more than one lane
    greedy            takes memory until it is refused some
    never_ready       reads its job and does nothing
    hold_at           a frame before which it waits for a stop
    deaf              does not answer a stop
    hooks             {frame: reason or null}: the health of the hooks from there on
    stderr            printed at the start
    last_twice        sends the last frame again, as a worker does whose hooks held something back
    end               [outcome, reason] instead of finished

It notes `lanes N` at its start and whenever it is told another number. Each start is a line `start PID FRAME` in the journal beside the plan; `done` is its last word.
"""
import json
import os
import resource
import signal
import struct
import sys

# Should its test die, it does not stay for ever.
signal.alarm(120)


def read():
    prefix = sys.stdin.buffer.read(4)
    if len(prefix) < 4:
        os._exit(0)
    return json.loads(sys.stdin.buffer.read(struct.unpack("<I", prefix)[0]))


def send_bytes(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def record(report):
    body = json.dumps(report).encode()
    return struct.pack("<I", len(body)) + body


def send(report):
    send_bytes(record(report))


def note(line):
    with open(job["source"] + ".journal", "a") as journal:
        journal.write(line + "\n")


def end(outcome, code, message):
    send({"ended": {"outcome": outcome, "reason": {"code": code, "message": message}}})
    note("done")
    os._exit(0)


def wait_for_ever():
    while True:
        signal.pause()


def wait_for_stop():
    while (told := read()) != {"type": "stop"}:
        set_lanes(told["lanes"])


def set_lanes(lanes):
    note(f"lanes {lanes}")
    send({"lanes": {"lanes": lanes}})


def frame(number):
    return {
        "scenario_id": job["scenario_id"], "generation": job["generation"],
        "pts_us": number * 40_000, "frame": number, "captured_at": "2026-01-01T00:00:00Z",
        "detections": [{"class_id": 0, "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}] * 3, "events": [],
        "timings": {"decode_us": 10, "pre_us": 20, "inference_us": 30, "post_us": 40},
        "provenance": job["provenance"],
    }


job = read()
with open(job["source"]) as text:
    plan = json.load(text)
resume = job["resume_after"]
first = resume["frame"] + 1 if resume else 0
note(f"start {os.getpid()} {first}")
for hook in job["pre"] + job["post"]:
    note(f"hook {hook['identity']['name']} {open(hook['compiled']).read()[:-64]} {json.dumps(hook['config'])}")
if job.get("memory_mib"):
    resource.setrlimit(resource.RLIMIT_DATA, [job["memory_mib"] << 20] * 2)
note(f"limit {resource.getrlimit(resource.RLIMIT_DATA)[1]}")
note("environment " + " ".join(sorted(os.environ)))
if "stderr" in plan:
    print(plan["stderr"], file=sys.stderr, flush=True)
if plan.get("out_of_memory"):
    print("memory allocation of 4294967296 bytes failed", file=sys.stderr, flush=True)
    os.abort()
if plan.get("greedy"):
    hoard = []
    try:
        while True:
            hoard.append(bytearray(64 << 20))
    except MemoryError:
        hoard = None
        end("failed", "model_load", "the model failed: std::bad_alloc")
if plan.get("never_ready"):
    wait_for_ever()
send({"ready": {"width": 64, "height": 48, "declared_fps": 25.0, "declared_frames": plan["frames"]}})
set_lanes(job["lanes"])

for number in range(first, 0 if plan.get("nothing") else plan["frames"]):
    def told(misdeed):
        return number != first and number in plan.get(misdeed, [])

    if told("crash_at") or number == plan.get("always_crash_at"):
        os.kill(os.getpid(), signal.SIGKILL)
    if told("torn_at"):
        send_bytes(record({"frame": frame(number)})[:-5])
        os._exit(3)
    if told("garbage_at"):
        send_bytes(b"\x05\x00\x00\x00hello")
        wait_for_ever()
    if told("large_at"):
        event = {"kind": "seen", "severity": "info", "attributes": {"text": "x" * (256 << 10)}}
        send({"frame": {**frame(number), "events": [event]}})
        wait_for_ever()
    if told("back_at"):
        # The last frame may come again; the one before it may not.
        send({"frame": frame(number - 2)})
        wait_for_ever()
    if number == plan.get("lanes_out_of_memory") and job["lanes"] > 1:
        print("memory allocation of 4294967296 bytes failed", file=sys.stderr, flush=True)
        os.abort()
    if told("silent_at"):
        wait_for_ever()
    if str(number) in plan.get("hooks", {}):
        send({"hooks": {"degraded": plan["hooks"][str(number)]}})
        send({"log": {"plugin": "p@1", "level": "warn", "target": "t", "message": "unwell"}})
    if number == plan.get("hold_at"):
        wait_for_stop()
        if plan.get("deaf"):
            wait_for_ever()
        end("stopped", "stopped_by_user", "stopped by a user")
    send({"frame": frame(number)})

if plan.get("last_twice"):
    send({"frame": frame(plan["frames"] - 1)})
outcome, reason = plan.get("end", ["finished", {"code": "end_of_stream", "message": "the file ended"}])
end(outcome, **reason)
