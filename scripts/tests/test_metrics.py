"""Average precision on cases small enough to work out by hand."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import metrics  # noqa: E402

BOX, ELSEWHERE = (0, 0, 10, 10), (50, 50, 60, 60)


class Overlap(unittest.TestCase):
    def test_of_equal_disjoint_and_half_covered_boxes(self):
        self.assertEqual(metrics.iou(BOX, BOX), 1.0)
        self.assertEqual(metrics.iou(BOX, ELSEWHERE), 0.0)
        self.assertEqual(metrics.iou(BOX, (0, 0, 10, 5)), 0.5)
        self.assertEqual(metrics.iou(BOX, (10, 0, 20, 10)), 0.0)


class AveragePrecision(unittest.TestCase):
    def check(self, found, objects, expected):
        self.assertAlmostEqual(metrics.average_precision(found, objects), expected)

    def test_everything_found_and_nothing_else(self):
        self.check([(0.9, 0, BOX)], {0: [(BOX, True)]}, 1.0)

    def test_nothing_found(self):
        self.check([], {0: [(BOX, True)]}, 0.0)

    def test_a_false_alarm_hurts_only_what_is_less_sure(self):
        objects = {0: [(BOX, True)], 1: [(BOX, True)]}
        self.check([(0.9, 0, BOX), (0.8, 1, BOX), (0.7, 0, ELSEWHERE)], objects, 1.0)
        # Precision 1 at the first half of recall, 2/3 at the second.
        self.check([(0.9, 0, BOX), (0.8, 0, ELSEWHERE), (0.7, 1, BOX)], objects, 0.5 + 0.5 * 2 / 3)

    def test_the_second_detection_of_one_object_is_a_false_alarm(self):
        objects = {0: [(BOX, True)], 1: [(BOX, True)]}
        self.check([(0.9, 0, BOX), (0.8, 0, BOX), (0.7, 1, BOX)], objects, 0.5 + 0.5 * 2 / 3)

    def test_a_hardly_visible_object_is_neither_needed_nor_wrong(self):
        objects = {0: [(BOX, True), (ELSEWHERE, False)]}
        self.check([(0.9, 0, ELSEWHERE), (0.8, 0, BOX)], objects, 1.0)
        self.check([(0.8, 0, BOX)], objects, 1.0)

    def test_the_right_box_on_another_frame_is_wrong(self):
        self.check([(0.9, 1, BOX)], {0: [(BOX, True)]}, 0.0)


class Predictions(unittest.TestCase):
    def test_normalised_boxes_meet_pixels_and_classes_are_apart(self):
        truth = {"width": 100, "height": 50, "names": ["a", "b"],
                 "frames": [[[7, 0, 10, 10, 30, 20, 1.0], [8, 1, 50, 10, 70, 20, 1.0]]]}
        detections = [{"class_id": 0, "score": 0.9, "box": [0.1, 0.2, 0.2, 0.2]},
                      {"class_id": 0, "score": 0.8, "box": [0.5, 0.2, 0.2, 0.2]}]
        predictions = [{"frame": 0, "detections": detections}]
        self.assertEqual(metrics.average_precisions(predictions, truth), [1.0, 0.0])


if __name__ == "__main__":
    unittest.main()
