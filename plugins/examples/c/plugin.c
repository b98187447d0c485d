// Finds objects in the output of a detector of the YOLOv8 form, and says when it gets crowded.
//
// The host does what is work: it finds the rows that have a class, and drops boxes that were found twice. What lies
// between two frames is in the host's `state`, so an instance that is started again goes on.
//
// Who owns what: arguments of an export are ours to free; what an export returns is freed by the generated code, and
// so are all texts and lists in it. Nothing is freed twice, because nothing is in two of them.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "postprocessor.h"

typedef framehook_plugin_types_detection_t detection_t;
typedef framehook_plugin_types_plugin_error_t error_t;
typedef framehook_plugin_media_borrow_inference_t inference_t;

// As the stock plugin `yolo`: more boxes would cost too much to compare.
#define MAX_CANDIDATES 3000
#define MAX_DETECTIONS 300
// Centre x, centre y, width, height.
#define BOX 4

// An instance is one per scenario.
static config_t config;
static postprocessor_list_string_t labels;
// What is kept, as it is kept.
static struct { uint32_t is_crowded, crowds; } seen;

static void *reserve(size_t count, size_t size) {
  void *room = calloc(count ? count : 1, size);
  // There is no memory: the host sees a trap and makes a new instance.
  if (!room) abort();
  return room;
}

static bool refuse(error_t *error, uint8_t tag, const char *words) {
  error->tag = tag;
  // Each of the errors is a text.
  postprocessor_string_dup(&error->val.bad_input, words);
  return false;
}

void exports_framehook_plugin_lifecycle_describe(framehook_plugin_types_descriptor_t *ret) {
  memset(ret, 0, sizeof *ret);
  postprocessor_string_dup(&ret->name, "crowd-c");
  postprocessor_string_dup(&ret->version, "0.1.0");
  postprocessor_string_dup(&ret->config_schema, CONFIG_SCHEMA);
}

bool exports_framehook_plugin_lifecycle_validate_config(
    postprocessor_string_t *text, exports_framehook_plugin_lifecycle_list_config_problem_t *err) {
  config_t parsed;
  const char *wrong = config_parse((const char *)text->ptr, text->len, &parsed);
  postprocessor_string_free(text);
  config_free(&parsed);
  if (!wrong) return true;
  err->len = 1;
  err->ptr = reserve(1, sizeof *err->ptr);
  postprocessor_string_dup(&err->ptr->path, "");
  postprocessor_string_dup(&err->ptr->message, wrong);
  return false;
}

bool exports_framehook_plugin_lifecycle_init(
    framehook_plugin_types_stream_info_t *info, postprocessor_string_t *text, framehook_plugin_types_ready_t *ret,
    error_t *err) {
  const char *wrong = config_parse((const char *)text->ptr, text->len, &config);
  postprocessor_string_free(text);
  if (wrong) {
    framehook_plugin_types_stream_info_free(info);
    return refuse(err, FRAMEHOOK_PLUGIN_TYPES_PLUGIN_ERROR_INVALID_CONFIG, wrong);
  }
  size_t count = config.labels ? config.labels : info->model_labels.len;
  ret->labels.len = count;
  ret->labels.ptr = reserve(count, sizeof *ret->labels.ptr);
  for (size_t at = 0; at < count; at++) {
    const char *own = config.labels ? config.label[at] : NULL;
    postprocessor_string_t *model = config.labels ? NULL : &info->model_labels.ptr[at];
    if (own) postprocessor_string_dup(&ret->labels.ptr[at], own);
    else postprocessor_string_dup_n(&ret->labels.ptr[at], (const char *)model->ptr, model->len);
  }
  labels.len = count;
  ret->wants_skipped = false;
  framehook_plugin_types_stream_info_free(info);

  postprocessor_string_t key;
  postprocessor_list_u8_t kept;
  postprocessor_string_set(&key, "crowds");
  if (framehook_plugin_state_get(&key, &kept)) {
    if (kept.len == sizeof seen) memcpy(&seen, kept.ptr, sizeof seen);
    postprocessor_list_u8_free(&kept);
  }
  postprocessor_string_t target, message;
  postprocessor_string_set(&target, "crowd");
  postprocessor_string_set(&message, "looks for crowds");
  framehook_plugin_log_list_attribute_t no_fields = {NULL, 0};
  framehook_plugin_log_log(FRAMEHOOK_PLUGIN_LOG_LEVEL_INFO, &target, &message, &no_fields);
  return true;
}

void exports_framehook_plugin_lifecycle_shutdown(void) {
  config_free(&config);
}

// The first output, if it is `[1, 4 + classes, boxes]`.
static bool find_head(inference_t inference, uint32_t *numbers, uint32_t *boxes, error_t *err) {
  framehook_plugin_media_list_tensor_desc_t outputs;
  framehook_plugin_media_method_inference_outputs(inference, &outputs);
  const framehook_plugin_media_tensor_desc_t *first = outputs.len ? outputs.ptr : NULL;
  bool fits = first && first->shape.len == 3 && first->shape.ptr[0] == 1 && first->shape.ptr[1] > BOX &&
              first->element == FRAMEHOOK_PLUGIN_MEDIA_ELEMENT_FLOAT;
  if (fits) {
    *numbers = first->shape.ptr[1];
    *boxes = first->shape.ptr[2];
  }
  framehook_plugin_media_list_tensor_desc_free(&outputs);
  if (!fits)
    return refuse(err, FRAMEHOOK_PLUGIN_TYPES_PLUGIN_ERROR_INVALID_CONFIG,
                  "no output [1, 4 + classes, boxes] comes first");
  if (labels.len && labels.len != *numbers - BOX)
    return refuse(err, FRAMEHOOK_PLUGIN_TYPES_PLUGIN_ERROR_INVALID_CONFIG,
                  "`labels` has another number of names than the model has classes");
  return true;
}

// A box of the model's input as shares of the frame; false, if nothing of it is there.
static bool on_frame(const float box[BOX], const framehook_plugin_media_geometry_t *geometry,
                     framehook_plugin_types_size_t frame, framehook_plugin_types_bbox_t *bbox) {
  float width = (float)frame.width, height = (float)frame.height;
  float left = (box[0] - box[2] / 2 - geometry->pad_x) / geometry->scale_x / width;
  float right = (box[0] + box[2] / 2 - geometry->pad_x) / geometry->scale_x / width;
  float top = (box[1] - box[3] / 2 - geometry->pad_y) / geometry->scale_y / height;
  float bottom = (box[1] + box[3] / 2 - geometry->pad_y) / geometry->scale_y / height;
  if (!isfinite(left) || !isfinite(right) || !isfinite(top) || !isfinite(bottom)) return false;
  left = fminf(fmaxf(left, 0), 1), right = fminf(fmaxf(right, 0), 1);
  top = fminf(fmaxf(top, 0), 1), bottom = fminf(fmaxf(bottom, 0), 1);
  *bbox = (framehook_plugin_types_bbox_t){left, top, right - left, bottom - top};
  return left < right && top < bottom;
}

// The rows that have a class, with the numbers of their boxes.
static bool candidates(inference_t inference, uint32_t numbers, uint32_t boxes,
                       framehook_plugin_media_list_candidate_t *found, postprocessor_list_f32_t *values) {
  framehook_plugin_media_class_scores_t scores = {boxes, numbers - BOX, BOX * boxes, 1, boxes};
  framehook_plugin_media_access_error_t why;
  if (!framehook_plugin_media_method_inference_argmax_rows(
          inference, 0, &scores, (float)config.min_score, MAX_CANDIDATES, found, &why))
    return false;
  postprocessor_list_u32_t elements = {reserve(found->len * BOX, sizeof(uint32_t)), found->len * BOX};
  for (size_t at = 0; at < elements.len; at++)
    elements.ptr[at] = found->ptr[at / BOX].row + (uint32_t)(at % BOX) * boxes;
  bool is_read = framehook_plugin_media_method_inference_gather_f32(inference, 0, &elements, values, &why);
  postprocessor_list_u32_free(&elements);
  if (!is_read) framehook_plugin_media_list_candidate_free(found);
  return is_read;
}

// Appends what is found to what was found.
static bool find(inference_t inference, framehook_plugin_types_list_detection_t *all, error_t *err) {
  uint32_t numbers, boxes;
  framehook_plugin_media_list_candidate_t found;
  postprocessor_list_f32_t values;
  if (!find_head(inference, &numbers, &boxes, err)) return false;
  if (!candidates(inference, numbers, boxes, &found, &values))
    return refuse(err, FRAMEHOOK_PLUGIN_TYPES_PLUGIN_ERROR_BAD_INPUT, "the output cannot be read");

  framehook_plugin_types_frame_meta_t meta;
  framehook_plugin_media_geometry_t geometry;
  framehook_plugin_media_method_inference_meta(inference, &meta);
  framehook_plugin_media_method_inference_geometry(inference, &geometry);
  framehook_plugin_media_list_scored_box_t scored = {reserve(found.len, sizeof *scored.ptr), 0};
  framehook_plugin_types_bbox_t *bboxes = reserve(found.len, sizeof *bboxes);
  for (size_t at = 0; at < found.len; at++) {
    framehook_plugin_types_bbox_t b;
    float score = found.ptr[at].score;
    if (!(score >= 0 && score <= 1) || !on_frame(values.ptr + at * BOX, &geometry, meta.size, &b)) continue;
    bboxes[scored.len] = b;
    scored.ptr[scored.len++] = (framehook_plugin_media_scored_box_t){
        b.x + b.width / 2, b.y + b.height / 2, b.width, b.height, 0, found.ptr[at].class_id, score};
  }
  framehook_plugin_media_list_candidate_free(&found);
  postprocessor_list_f32_free(&values);

  postprocessor_list_u32_t kept;
  framehook_plugin_media_suppress(&scored, (float)config.iou, false, MAX_DETECTIONS, &kept);
  detection_t *grown = reserve(all->len + kept.len, sizeof *grown);
  memcpy(grown, all->ptr, all->len * sizeof *grown);
  for (size_t at = 0; at < kept.len; at++) {
    detection_t *one = &grown[all->len + at];
    one->class_id = scored.ptr[kept.ptr[at]].class_id;
    one->score = scored.ptr[kept.ptr[at]].score;
    one->bbox = bboxes[kept.ptr[at]];
  }
  // What was in the old list is in the new one.
  if (all->len) free(all->ptr);
  all->ptr = grown;
  all->len += kept.len;
  postprocessor_list_u32_free(&kept);
  framehook_plugin_media_list_scored_box_free(&scored);
  free(bboxes);
  return true;
}

static void number(framehook_plugin_types_attribute_t *attribute, const char *key, double value) {
  postprocessor_string_dup(&attribute->key, key);
  attribute->value.tag = FRAMEHOOK_PLUGIN_TYPES_VALUE_NUMBER;
  attribute->value.val.number = value;
}

static bool crowded(size_t count, framehook_plugin_types_outcome_t *ret, error_t *err) {
  uint32_t is_crowded = count >= config.crowd;
  if (is_crowded == seen.is_crowded) return true;
  seen.is_crowded = is_crowded;
  seen.crowds += is_crowded;
  postprocessor_string_t key;
  postprocessor_string_set(&key, "crowds");
  postprocessor_list_u8_t kept = {(uint8_t *)&seen, sizeof seen};
  framehook_plugin_state_state_error_t why;
  if (!framehook_plugin_state_set(&key, &kept, &why))
    return refuse(err, FRAMEHOOK_PLUGIN_TYPES_PLUGIN_ERROR_TRANSIENT, "the state is not kept");
  if (!is_crowded) return true;

  framehook_plugin_types_event_t *event = reserve(1, sizeof *event);
  postprocessor_string_dup(&event->kind, "crowded");
  event->severity = FRAMEHOOK_PLUGIN_TYPES_SEVERITY_WARNING;
  event->subjects = (postprocessor_list_u32_t){reserve(count, sizeof(uint32_t)), count};
  for (size_t at = 0; at < count; at++) event->subjects.ptr[at] = (uint32_t)at;
  event->attributes.len = 2;
  event->attributes.ptr = reserve(2, sizeof *event->attributes.ptr);
  number(&event->attributes.ptr[0], "count", (double)count);
  number(&event->attributes.ptr[1], "crowds", (double)seen.crowds);
  ret->events.len = 1;
  ret->events.ptr = event;
  return true;
}

bool exports_framehook_plugin_postprocess_postprocess(
    inference_t inference, exports_framehook_plugin_postprocess_list_detection_t *detections,
    exports_framehook_plugin_postprocess_outcome_t *ret, error_t *err) {
  framehook_plugin_types_list_detection_t all = {detections->ptr, detections->len};
  memset(ret, 0, sizeof *ret);
  bool is_done = find(inference, &all, err) && crowded(all.len, ret, err);
  // It is lent for this call.
  framehook_plugin_media_inference_drop_borrow(inference);
  ret->detections.ptr = all.ptr;
  ret->detections.len = all.len;
  if (!is_done) framehook_plugin_types_outcome_free(ret);
  return is_done;
}

bool exports_framehook_plugin_postprocess_skipped(
    framehook_plugin_types_frame_meta_t *frame, postprocessor_string_t *reason,
    exports_framehook_plugin_postprocess_list_detection_t *detections,
    exports_framehook_plugin_postprocess_outcome_t *ret, error_t *err) {
  (void)frame, (void)err;
  postprocessor_string_free(reason);
  memset(ret, 0, sizeof *ret);
  ret->detections.ptr = detections->ptr;
  ret->detections.len = detections->len;
  return true;
}

bool exports_framehook_plugin_postprocess_flush(
    exports_framehook_plugin_postprocess_list_event_t *ret, error_t *err) {
  (void)err;
  *ret = (exports_framehook_plugin_postprocess_list_event_t){NULL, 0};
  return true;
}
