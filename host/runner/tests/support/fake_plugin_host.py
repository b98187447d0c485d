#!/usr/bin/env python3
"""`plugin-host compile FILE`: a plugin is a text, compiled by writing it in upper case. `bad` is refused, `hang` hangs."""
import os
import signal
import sys

signal.alarm(120)
assert sys.argv[1:3] == ["plugin-host", "compile"], sys.argv
text = open(sys.argv[3]).read()
world = os.path.dirname(sys.argv[3])
while not os.path.isdir(os.path.join(world, "cache")):
    world = os.path.dirname(world)
with open(os.path.join(world, "cache", "compilations"), "a") as journal:
    journal.write(f"{os.getpid()} {text}\n")
if text == "bad":
    sys.exit("error: it imports `wasi:sockets`, which no plugin may")
if text == "hang":
    signal.pause()
sys.stdout.write(text.upper())
