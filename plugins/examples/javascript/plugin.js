// Finds objects in the output of a detector of the YOLOv8 form, and says when it gets crowded.
//
// The host does what is work: it finds the rows that have a class, and drops boxes that were found twice. JavaScript
// looks at what is left. What lies between two frames is in the host's `state`, so an instance that is started again
// goes on.

import { log } from 'framehook:plugin/log@0.2.0';
import { suppress } from 'framehook:plugin/media@0.2.0';
import * as state from 'framehook:plugin/state@0.2.0';

// As many as a script has time for; those with the highest scores, if there are more.
const MAX_CANDIDATES = 600;
const MAX_DETECTIONS = 300;
// Centre x, centre y, width, height.
const BOX = 4;
const STATE = 'crowds';

const share = { type: 'number', minimum: 0, maximum: 1 };
const schema = {
  type: 'object',
  additionalProperties: false,
  properties: {
    labels: {
      type: 'array', items: { type: 'string' }, default: [],
      description: "Names of the classes; those of the model's file, if empty.",
    },
    min_score: { ...share, default: 0.25, description: 'Detections below this score are dropped.' },
    iou: { ...share, default: 0.45, description: 'Boxes of a class that overlap by more are one object.' },
    crowd: { type: 'integer', minimum: 1, default: 3, description: 'As many objects are a crowd.' },
  },
};
const defaults = Object.fromEntries(Object.entries(schema.properties).map(([name, about]) => [name, about.default]));

const isShare = (value) => typeof value === 'number' && value >= 0 && value <= 1;
const checks = {
  labels: (value) => Array.isArray(value) && value.every((label) => typeof label === 'string'),
  min_score: isShare,
  iou: isShare,
  crowd: (value) => Number.isInteger(value) && value >= 1,
};

// What is wrong with a configuration. The host has held it against the schema; this trusts nobody.
function problems(config) {
  if (config === null || typeof config !== 'object' || Array.isArray(config)) {
    return [{ path: '', message: 'must be an object' }];
  }
  const found = [];
  for (const [name, value] of Object.entries(config)) {
    if (!Object.hasOwn(checks, name)) found.push({ path: `/${name}`, message: 'there is no such setting' });
    else if (!checks[name](value)) found.push({ path: `/${name}`, message: 'is not what the schema says' });
  }
  return found;
}

// An instance is one per scenario.
let config, labels, seen;

// An error of the contract: what is thrown is the `err` of the result.
const refused = (tag, val) => ({ tag, val });

export const lifecycle = {
  describe() {
    return { name: 'crowd-javascript', version: '0.1.0', configSchema: JSON.stringify(schema), input: {} };
  },

  validateConfig(text) {
    const found = problems(JSON.parse(text));
    if (found.length > 0) throw found;
  },

  init(info, text) {
    const given = JSON.parse(text);
    const [problem] = problems(given);
    if (problem) throw refused('invalid-config', `${problem.path}: ${problem.message}`);
    config = { ...defaults, ...given };
    labels = config.labels.length > 0 ? config.labels : info.modelLabels;
    const kept = state.get(STATE);
    seen = kept ? JSON.parse(new TextDecoder().decode(kept)) : { isCrowded: false, crowds: 0 };
    log('info', 'crowd', `a crowd is ${config.crowd} or more`, []);
    return { labels, wantsSkipped: false };
  },

  shutdown() {},
};

export const postprocess = {
  postprocess(inference, detections) {
    const all = [...detections, ...find(inference)];
    return { detections: all, events: crowded(all.length) };
  },

  skipped(_frame, _reason, detections) {
    return { detections, events: [] };
  },

  flush() {
    return [];
  },
};

function find(inference) {
  const [numbers, boxes] = head(inference.outputs());
  const scores = { rows: boxes, classes: numbers - BOX, offset: BOX * boxes, rowStride: 1, classStride: boxes };
  let candidates, values;
  try {
    const all = inference.argmaxRows(0, scores, config.min_score, MAX_CANDIDATES);
    candidates = all.filter(({ score }) => isShare(score));
    const elements = new Uint32Array(candidates.length * BOX);
    elements.forEach((_, at) => { elements[at] = candidates[Math.floor(at / BOX)].row + (at % BOX) * boxes; });
    values = inference.gatherF32(0, elements);
  } catch (error) {
    throw refused('bad-input', `the output cannot be read: ${error.payload ?? error}`);
  }
  const { size } = inference.meta();
  const geometry = inference.geometry();
  const found = [];
  candidates.forEach(({ classId, score }, at) => {
    const bbox = onFrame(values.subarray(at * BOX, (at + 1) * BOX), geometry, size);
    if (bbox) found.push({ classId, score, bbox, keypoints: [], polygon: [], attributes: [] });
  });
  const scored = found.map(({ classId, score, bbox: { x, y, width, height } }) => (
    { centerX: x + width / 2, centerY: y + height / 2, width, height, angle: 0, classId, score }
  ));
  return Array.from(suppress(scored, config.iou, false, MAX_DETECTIONS), (at) => found[at]);
}

function head(outputs) {
  const shape = Array.from(outputs[0]?.shape ?? []);
  if (shape.length !== 3 || shape[0] !== 1 || shape[1] <= BOX || outputs[0].element !== 'float') {
    const there = outputs.map((output) => `${output.name} [${output.shape}]`).join(', ');
    throw refused('invalid-config', `no output [1, 4 + classes, boxes] comes first: ${there}`);
  }
  if (labels.length > 0 && labels.length !== shape[1] - BOX) {
    const words = `\`labels\` has ${labels.length} names, but the model ${shape[1] - BOX} classes`;
    throw refused('invalid-config', words);
  }
  return [shape[1], shape[2]];
}

// A box of the model's input as shares of the frame; none, if nothing of it is there.
function onFrame([centerX, centerY, width, height], { scaleX, scaleY, padX, padY }, frame) {
  const part = (value, pad, scale, side) => Math.min(Math.max((value - pad) / scale / side, 0), 1);
  const left = part(centerX - width / 2, padX, scaleX, frame.width);
  const right = part(centerX + width / 2, padX, scaleX, frame.width);
  const top = part(centerY - height / 2, padY, scaleY, frame.height);
  const bottom = part(centerY + height / 2, padY, scaleY, frame.height);
  // Also false where one of them is not a number.
  return left < right && top < bottom ? { x: left, y: top, width: right - left, height: bottom - top } : null;
}

function crowded(count) {
  const isCrowded = count >= config.crowd;
  if (isCrowded === seen.isCrowded) return [];
  seen = { isCrowded, crowds: seen.crowds + Number(isCrowded) };
  try {
    state.set(STATE, new TextEncoder().encode(JSON.stringify(seen)));
  } catch (error) {
    throw refused('transient', `the state is not kept: ${error.payload ?? error}`);
  }
  if (!isCrowded) return [];
  const number = ([key, val]) => ({ key, value: { tag: 'number', val } });
  const attributes = Object.entries({ count, crowds: seen.crowds }).map(number);
  return [{ kind: 'crowded', severity: 'warning', subjects: [...Array(count).keys()], attributes }];
}
