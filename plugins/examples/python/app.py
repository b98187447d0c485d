"""Finds objects in the output of a detector of the YOLOv8 form, and says when it gets crowded.

The host does what is work: it finds the rows that have a class, and drops boxes that were found twice. Python looks at
what is left. What lies between two frames is in the host's `state`, so an instance that is started again goes on.
"""

import json

from componentize_py_types import Err
from wit_world.exports import Lifecycle as LifecycleExports
from wit_world.exports import Postprocess as PostprocessExports
from wit_world.imports import log, media, state, types

# As many as a script has time for; those with the highest scores, if there are more.
MAX_CANDIDATES = 600
MAX_DETECTIONS = 300
# Centre x, centre y, width, height.
BOX = 4
STATE = "crowds"

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "labels": {
            "type": "array", "items": {"type": "string"}, "default": [],
            "description": "Names of the classes; those of the model's file, if empty.",
        },
        "min_score": {**SHARE, "default": 0.25, "description": "Detections below this score are dropped."},
        "iou": {**SHARE, "default": 0.45, "description": "Boxes of a class that overlap by more are one object."},
        "crowd": {"type": "integer", "minimum": 1, "default": 3, "description": "As many objects are a crowd."},
    },
}
DEFAULTS = {name: about["default"] for name, about in SCHEMA["properties"].items()}


def problems(config) -> list[types.ConfigProblem]:
    """What is wrong with a configuration. The host has held it against the schema; this trusts nobody."""
    if not isinstance(config, dict):
        return [types.ConfigProblem("", "must be an object")]
    found = []
    checks = {
        "labels": lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
        "min_score": is_share,
        "iou": is_share,
        "crowd": lambda value: is_number(value) and value >= 1 and value == int(value),
    }
    for name, value in config.items():
        if name not in checks:
            found.append(types.ConfigProblem("/" + name, "there is no such setting"))
        elif not checks[name](value):
            found.append(types.ConfigProblem("/" + name, "is not what the schema says"))
    return found


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def is_share(value) -> bool:
    return is_number(value) and 0 <= value <= 1


class Lifecycle(LifecycleExports):
    def describe(self) -> types.Descriptor:
        no_wishes = types.InputOptions(None, None, None, None, None, None, None, None, None)
        return types.Descriptor("crowd-python", "0.1.0", json.dumps(SCHEMA), no_wishes)

    def validate_config(self, config: str) -> None:
        found = problems(json.loads(config))
        if found:
            raise Err(found)

    def init(self, info: types.StreamInfo, config: str) -> types.Ready:
        given = json.loads(config)
        if found := problems(given):
            raise Err(types.PluginError_InvalidConfig(f"{found[0].path}: {found[0].message}"))
        HOOK.start({**DEFAULTS, **given}, info.model_labels)
        log.log(log.Level.INFO, "crowd", f"a crowd is {HOOK.config['crowd']} or more", [])
        return types.Ready(HOOK.labels, False)

    def shutdown(self) -> None:
        pass


class Postprocess(PostprocessExports):
    def postprocess(self, inference: media.Inference, detections: list[types.Detection]) -> types.Outcome:
        detections = detections + HOOK.find(inference)
        return types.Outcome(detections, HOOK.crowded(len(detections)))

    def skipped(self, frame: types.FrameMeta, reason: str, detections: list[types.Detection]) -> types.Outcome:
        return types.Outcome(detections, [])

    def flush(self) -> list[types.Event]:
        return []


class Hook:
    """One per instance, as an instance is one per scenario."""

    def start(self, config: dict, model_labels: list[str]) -> None:
        self.config = config
        self.labels = config["labels"] or model_labels
        kept = state.get(STATE)
        self.seen = json.loads(kept) if kept else {"is_crowded": False, "crowds": 0}

    def find(self, inference: media.Inference) -> list[types.Detection]:
        numbers, boxes = self.head(inference.outputs())
        scores = media.ClassScores(boxes, numbers - BOX, BOX * boxes, 1, boxes)
        try:
            candidates = inference.argmax_rows(0, scores, self.config["min_score"], MAX_CANDIDATES)
            candidates = [candidate for candidate in candidates if 0 <= candidate.score <= 1]
            elements = [candidate.row + number * boxes for candidate in candidates for number in range(BOX)]
            values = inference.gather_f32(0, elements)
        except Err as error:
            raise Err(types.PluginError_BadInput(f"the output cannot be read: {error.value}"))
        frame, geometry = inference.meta().size, inference.geometry()
        found = []
        for at, candidate in enumerate(candidates):
            bbox = on_frame(values[at * BOX:(at + 1) * BOX], geometry, frame)
            if bbox:
                found.append(types.Detection(candidate.class_id, None, candidate.score, bbox, None, [], [], None, []))
        scored = [
            media.ScoredBox(
                d.bbox.x + d.bbox.width / 2, d.bbox.y + d.bbox.height / 2, d.bbox.width, d.bbox.height, 0.0,
                d.class_id, d.score,
            )
            for d in found
        ]
        return [found[at] for at in media.suppress(scored, self.config["iou"], False, MAX_DETECTIONS)]

    def head(self, outputs: list[media.TensorDesc]) -> tuple[int, int]:
        shape = outputs[0].shape if outputs else []
        if len(shape) != 3 or shape[0] != 1 or shape[1] <= BOX or outputs[0].element != media.Element.FLOAT:
            there = [(output.name, output.shape) for output in outputs]
            raise Err(types.PluginError_InvalidConfig(f"no output [1, 4 + classes, boxes] comes first: {there}"))
        if self.labels and len(self.labels) != shape[1] - BOX:
            words = f"`labels` has {len(self.labels)} names, but the model {shape[1] - BOX} classes"
            raise Err(types.PluginError_InvalidConfig(words))
        return shape[1], shape[2]

    def crowded(self, count: int) -> list[types.Event]:
        is_crowded, was_crowded = count >= self.config["crowd"], self.seen["is_crowded"]
        if is_crowded == was_crowded:
            return []
        self.seen = {"is_crowded": is_crowded, "crowds": self.seen["crowds"] + is_crowded}
        try:
            state.set(STATE, json.dumps(self.seen).encode())
        except Err as error:
            raise Err(types.PluginError_Transient(f"the state is not kept: {error.value}"))
        if not is_crowded:
            return []
        numbers = {"count": count, "crowds": self.seen["crowds"]}
        attributes = [types.Attribute(key, types.Value_Number(float(n))) for key, n in numbers.items()]
        return [types.Event("crowded", types.Severity.WARNING, list(range(count)), attributes, None)]


def on_frame(values: list[float], geometry: media.Geometry, frame: types.Size) -> types.Bbox | None:
    """A box of the model's input as shares of the frame; none, if nothing of it is there."""
    center_x, center_y, width, height = values

    def share(value: float, pad: float, scale: float, side: int) -> float:
        return min(max((value - pad) / scale / side, 0.0), 1.0)

    left = share(center_x - width / 2, geometry.pad_x, geometry.scale_x, frame.width)
    right = share(center_x + width / 2, geometry.pad_x, geometry.scale_x, frame.width)
    top = share(center_y - height / 2, geometry.pad_y, geometry.scale_y, frame.height)
    bottom = share(center_y + height / 2, geometry.pad_y, geometry.scale_y, frame.height)
    # Also false where one of them is not a number.
    return types.Bbox(left, top, right - left, bottom - top) if left < right and top < bottom else None


HOOK = Hook()
