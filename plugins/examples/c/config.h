// The plugin's configuration: an object of numbers and one list of texts. A parser of as much JSON as that.

#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_SCHEMA \
  "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{" \
  "\"labels\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"default\":[]," \
  "\"description\":\"Names of the classes; those of the model's file, if empty.\"}," \
  "\"min_score\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1,\"default\":0.25," \
  "\"description\":\"Detections below this score are dropped.\"}," \
  "\"iou\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1,\"default\":0.45," \
  "\"description\":\"Boxes of a class that overlap by more are one object.\"}," \
  "\"crowd\":{\"type\":\"integer\",\"minimum\":1,\"default\":3,\"description\":\"As many objects are a crowd.\"}}}"

// The largest public data sets have some 1,000 classes that one would detect.
#define MAX_LABELS 1024

typedef struct {
  double min_score, iou, crowd;
  size_t labels;
  // Each with a 0 behind it, in `texts`.
  const char *label[MAX_LABELS];
  char *texts;
} config_t;

static inline void config_free(config_t *config) {
  free(config->texts);
  memset(config, 0, sizeof *config);
}

static inline void skip_space(char **at) {
  while (**at && strchr(" \t\r\n", **at)) ++*at;
}

static inline bool take(char **at, char what) {
  skip_space(at);
  if (**at != what) return false;
  ++*at;
  return true;
}

// A text without escapes, ended where it lies.
static inline const char *take_text(char **at) {
  if (!take(at, '"')) return NULL;
  char *text = *at;
  while (**at && **at != '"' && **at != '\\') ++*at;
  if (**at != '"') return NULL;
  *(*at)++ = 0;
  return text;
}

static inline bool take_number(char **at, double *value, double least, double most) {
  skip_space(at);
  char *end;
  *value = strtod(*at, &end);
  bool is_number = end != *at && *value >= least && *value <= most;
  *at = end;
  return is_number;
}

static inline bool take_labels(char **at, config_t *config) {
  if (!take(at, '[')) return false;
  if (take(at, ']')) return true;
  do {
    const char *label = take_text(at);
    if (!label || config->labels == MAX_LABELS) return false;
    config->label[config->labels++] = label;
  } while (take(at, ','));
  return take(at, ']');
}

// What is wrong, or NULL. To be freed in either case.
static inline const char *config_parse(const char *text, size_t length, config_t *config) {
  memset(config, 0, sizeof *config);
  config->min_score = 0.25;
  config->iou = 0.45;
  config->crowd = 3;
  char *at = config->texts = calloc(length + 1, 1);
  if (!at) return "there is no memory";
  memcpy(at, text, length);
  if (!take(&at, '{')) return "must be an object";
  if (take(&at, '}')) return NULL;
  do {
    const char *key = take_text(&at);
    if (!key || !take(&at, ':')) return "is no object that this plugin can read";
    if (!strcmp(key, "labels")) {
      if (!take_labels(&at, config)) return "`labels` is a list of texts without escapes";
    } else if (!strcmp(key, "min_score")) {
      if (!take_number(&at, &config->min_score, 0, 1)) return "`min_score` is 0 to 1";
    } else if (!strcmp(key, "iou")) {
      if (!take_number(&at, &config->iou, 0, 1)) return "`iou` is 0 to 1";
    } else if (!strcmp(key, "crowd")) {
      if (!take_number(&at, &config->crowd, 1, 1e9)) return "`crowd` is 1 or more";
    } else {
      return "has a setting that there is not";
    }
  } while (take(&at, ','));
  return take(&at, '}') ? NULL : "is no object that this plugin can read";
}
