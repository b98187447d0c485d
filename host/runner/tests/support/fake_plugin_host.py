#!/usr/bin/env python3
"""`plugin-host compile FILE OUT`: a plugin is a text, compiled by writing it in upper case. `bad` is refused, `hang` hangs."""
import os
import signal
import sys

signal.alarm(120)
assert sys.argv[1:3] == ["plugin-host", "compile"], sys.argv
text = open(sys.argv[3]).read()
with open(os.path.join(os.path.dirname(sys.argv[4]), "compilations"), "a") as journal:
    journal.write(f"{os.getpid()} {text}\n")
if text == "bad":
    sys.exit("error: it imports `wasi:sockets`, which no plugin may")
if text == "hang":
    signal.pause()
with open(sys.argv[4], "w") as out:
    out.write(text.upper())
