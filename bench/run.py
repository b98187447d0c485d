"""Measures Framehook and prints tables: `make bench`, or some parts of it, such as `make bench PARTS="inbox relay"`.

Each part is a module beside this one: it starts what it needs on free ports of 127.0.0.1, measures several times, in turns
with what it is compared with, and stops everything. Medians go to standard output as Markdown and, with every
single run, to bench/results.json, where the parts that are not measured stay as they were.
"""

import argparse
import datetime
import importlib
import json
import os
import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
RESULTS = BENCH / "results.json"
sys.path.insert(0, str(ROOT / "scripts"))

# Each with its rounds, and about how long it takes.
PARTS = {
    "pipeline": (5, "two minutes"),
    "providers": (5, "three minutes"),
    "real": (5, "six minutes"),
    "confinement": (15, "ten minutes"),
    "latency": (30, "four minutes"),
    "inbox": (5, "two minutes"),
    "relay": (5, "one minute"),
    "rest": (3, "two minutes"),
    "state": (5, "two minutes"),
    "shadow": (5, "one minute"),
    "hooks": (5, "two minutes, and one more to compile the first time"),
    "record": (5, "two minutes"),
    "fleet": (3, "five minutes"),
    "neighbour": (5, "three minutes"),
}


def enter_environment():
    """Goes on in the Python environment that has the dependencies."""
    made = subprocess.run([ROOT / "scripts" / "venv.sh", "bench", BENCH / "requirements.txt"],
                          stdout=subprocess.PIPE, text=True)
    if made.returncode != 0:
        sys.exit("bench: the Python environment could not be made; the reason is above")
    python = made.stdout.strip()
    if sys.executable != python:
        os.execv(python, [python, *sys.argv])


def run(name, rounds):
    """Measures one part, and keeps and prints what came out."""
    from machine import MAX_DISTURBANCE, Disturbance, processor
    part = importlib.import_module(name)
    default, duration = PARTS[name]
    rounds = rounds or default
    print(f"==> bench: {name}: {part.__doc__.splitlines()[0]}\n    about {duration}", flush=True)
    with Disturbance() as disturbance:
        measured = part.measure(rounds, lambda text: print(f"    {text}", flush=True))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    document = {"date": today, "processor": processor(), "rounds": rounds,
                "disturbance": round(disturbance.share, 3), **measured}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**results, name: document}, indent=1) + "\n")
    print(f"\nMedians of {rounds} runs, {today}, {processor()}:\n\n{part.table(document)}\n\n"
          f"Other processes used {100 * disturbance.share:.0f} % of the machine meanwhile.")
    if disturbance.share > MAX_DISTURBANCE:
        print("That is too much for the absolute figures to mean anything; measure again on a quiet machine.")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="instead of each part's own number")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; choose from {', '.join(PARTS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    enter_environment()
    from framehook import Failure, shown
    for name in arguments.parts or PARTS:
        try:
            run(name, arguments.rounds)
        except Failure as failure:
            sys.exit(f"bench: {name}: {failure}")
    print(f"Every run: {shown(RESULTS)}")


if __name__ == "__main__":
    main()
