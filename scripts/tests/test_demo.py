"""What the demo makes of the API's answers."""

import io
import json
import pathlib
import sys
import unittest
import urllib.error
from contextlib import redirect_stdout

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import demo  # noqa: E402
import framehook  # noqa: E402


def view(state, frames, fps=None):
    return {"state": state, "fps": fps, "progress": {"frames": frames, "frames_total": 500}}


class Shown(unittest.TestCase):
    def test_events_follow_the_detections_that_remain(self):
        prediction = {"frame": 3, "detections": [{"score": s} for s in (0.1, 0.9, 0.2, 0.8)],
                      "events": [{"kind": "line_crossed", "subjects": [3, 0]}, {"kind": "quiet"}]}
        shown = demo.with_score(prediction, 0.5)
        self.assertEqual(shown["detections"], [{"score": 0.9}, {"score": 0.8}])
        self.assertEqual([e["subjects"] for e in shown["events"]], [[1], []])
        self.assertEqual(len(prediction["detections"]), 4)


class Frames(unittest.TestCase):
    def test_missing_doubled_and_disordered_frames_are_told(self):
        demo.check_frames([{"frame": n} for n in range(5)], 5)
        for numbers in ([0, 1, 2], [0, 1, 1, 2, 3], [0, 2, 1, 3, 4], [1, 2, 3, 4, 5]):
            with self.assertRaises(framehook.Failure):
                demo.check_frames([{"frame": n} for n in numbers], 5)


class Bar(unittest.TestCase):
    def test_without_a_terminal_there_are_whole_lines_and_always_a_last_one(self):
        with redirect_stdout(io.StringIO()) as out:
            progress = demo.Progress()
            for number in range(100):
                progress.show(view("running", number, 123.4))
            progress.show(view("completed", 500, 200))
            progress.end()
        lines = out.getvalue().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn("500 of 500 frames, 100 %, 200 fps, completed", lines[-1])


class Problems(unittest.TestCase):
    def answer(self, body):
        return urllib.error.HTTPError("http://x", 422, "Unprocessable Entity", {}, io.BytesIO(body))

    def test_a_problem_document_is_told_in_words(self):
        problem = {"code": "unknown_model", "title": "No such model", "detail": "no model `a@1`", "field": "model"}
        self.assertEqual(framehook.explain(self.answer(json.dumps(problem).encode())),
                         "422 unknown_model: no model `a@1` (field `model`)")

    def test_anything_else_is_told_by_its_status(self):
        for body in (b"", b"oops", b"[]", b"{}"):
            self.assertEqual(framehook.explain(self.answer(body)), "422 Unprocessable Entity")


if __name__ == "__main__":
    unittest.main()
