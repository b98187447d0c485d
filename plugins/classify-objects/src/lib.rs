//! Classifies each object that an earlier hook found, with a further model of the scenario: detect, then tell
//! what kind it is.
//!
//! The best class becomes an attribute of the detection, its score another one. Objects are run together as
//! far as the model takes it, the surest first, and no more than `max_objects` of a frame.

use framehook_sdk::{
    Bbox, ConfigProblem, Detection, Error, Hook, Inference, Outcome, PostHook, Rect, Size, Stream, model, state,
};
use model_outputs::{
    LEARNT,
    classes::Activation,
    classifier::Classifier,
    config::{count, problems, share},
    learnt,
    scores::best,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Which of the scenario's `models`.
    model: String,
    /// Labels of the objects that are classified; all if empty.
    #[serde(default)]
    of: Vec<String>,
    /// Name of the attribute that gets the class, and with `_score` behind it of that of its score. Left out:
    /// the name of the model.
    #[serde(default)]
    attribute: Option<String>,
    /// Names of the classes, by class id. Left out: those in the model's file, else their numbers.
    #[serde(default)]
    labels: Vec<String>,
    /// Below this score an object gets no class.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// What is shown around an object on each side, as a share of its width and height.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    margin: f64,
    /// So many objects of a frame at most.
    #[serde(default = "some")]
    #[schemars(range(min = 1, max = 128))]
    max_objects: u32,
    /// What makes scores of the model's numbers. Left out: nothing where they are probabilities whose sum is
    /// 1, softmax where some are outside of 0 to 1.
    #[serde(default)]
    activation: Option<Activation>,
    /// Name of the model's output. Needed only if several have the layout.
    #[serde(default)]
    output: Option<String>,
}

const fn half() -> f64 {
    0.5
}

/// More are rarely in one picture, and each costs a run of the model.
const fn some() -> u32 {
    32
}

struct ClassifyObjects {
    config: Config,
    attribute: String,
    labels: Vec<String>,
    classifier: Classifier,
}

impl Hook for ClassifyObjects {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        let model = model::named(&config.model)?;
        let labels = if config.labels.is_empty() { model.labels } else { config.labels.clone() };
        let classifier = Classifier {
            labels: labels.len(),
            activation: config.activation,
            output: config.output.clone(),
            learnt: learnt(),
            ..Classifier::default()
        };
        let attribute = config.attribute.clone().unwrap_or_else(|| config.model.clone());
        Ok(Self { config, attribute, labels, classifier })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        problems(&[
            share(config.min_score, "/min_score"),
            share(config.margin, "/margin"),
            count(config.max_objects, "/max_objects"),
        ])
    }
}

impl PostHook for ClassifyObjects {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let objects = self.chosen(&detections, inference.meta().size);
        let regions: Vec<_> = objects.iter().map(|(_, region)| *region).collect();
        if !regions.is_empty() {
            for ((at, _), run) in objects.iter().zip(model::run(&self.config.model, &regions)?) {
                if let Some(scores) = self.classifier.scores(&run)? {
                    self.tell(&mut detections[*at], &scores);
                }
            }
            // Without room it is learnt again.
            state::save(LEARNT, &self.classifier.learnt).ok();
        }
        Ok(Outcome { detections, events: Vec::new() })
    }
}

impl ClassifyObjects {
    /// Which detections, by their places, and what of the frame they show; the surest first.
    fn chosen(&self, detections: &[Detection], frame: Size) -> Vec<(usize, Rect)> {
        let Config { of, margin, max_objects, .. } = &self.config;
        let is_asked_for = |d: &Detection| of.is_empty() || d.label.as_ref().is_some_and(|label| of.contains(label));
        let asked = detections.iter().enumerate().filter(|(_, d)| is_asked_for(d));
        let mut objects: Vec<_> = asked.filter_map(|(at, d)| Some((at, region(d.bbox, *margin, frame)?))).collect();
        objects.sort_by(|(a, _), (b, _)| detections[*b].score.total_cmp(&detections[*a].score));
        objects.truncate(*max_objects as usize);
        objects
    }

    fn tell(&self, detection: &mut Detection, scores: &[f32]) {
        let Some((class, score)) = best(scores).filter(|(_, score)| f64::from(*score) >= self.config.min_score) else {
            return;
        };
        let name = self.labels.get(class).filter(|name| !name.is_empty()).cloned();
        let told = std::mem::take(detection).with(&self.attribute, name.unwrap_or_else(|| class.to_string()));
        *detection = told.with(format!("{}_score", self.attribute), score);
    }
}

/// By which a place of 32 bits may miss the edge of a pixel, in the largest pictures that there are.
const ROUNDING: f64 = 0.001;

/// The pixels of a box with a margin; `None` if there are none.
fn region(bbox: Bbox, margin: f64, frame: Size) -> Option<Rect> {
    let side = |at: f32, length: f32, pixels: u32| {
        let (at, length, pixels) = (f64::from(at), f64::from(length), f64::from(pixels));
        let begin = ((at - length * margin) * pixels + ROUNDING).floor().clamp(0.0, pixels);
        let end = ((at + length * (1.0 + margin)) * pixels - ROUNDING).ceil().clamp(0.0, pixels);
        (end > begin).then_some((begin as u32, (end - begin) as u32))
    };
    let (x, width) = side(bbox.x, bbox.width, frame.width)?;
    let (y, height) = side(bbox.y, bbox.height, frame.height)?;
    Some(Rect { x, y, width, height })
}

framehook_sdk::export!(post: ClassifyObjects);

#[cfg(test)]
mod tests {
    use framehook_sdk::{
        Value,
        testing::{self, Output, Scene},
    };

    use super::*;

    const FRAME: Size = Size { width: 100, height: 50 };

    fn plugin(config: &str) -> ClassifyObjects {
        let config: Config = serde_json::from_str(config).unwrap();
        let attribute = "kind".to_owned();
        ClassifyObjects {
            config,
            attribute,
            labels: vec!["van".into(), String::new()],
            classifier: Classifier::default(),
        }
    }

    fn seen(label: &str, score: f32, x: f32) -> Detection {
        let bbox = Bbox { x, y: 0.2, width: 0.1, height: 0.4 };
        Detection { label: Some(label.into()), ..Detection::new(0, score, bbox) }
    }

    fn sides(rect: Rect) -> [u32; 4] {
        [rect.x, rect.y, rect.width, rect.height]
    }

    #[test]
    fn a_region_is_the_pixels_that_a_box_touches_within_the_frame() {
        for (bbox, margin, expected) in [
            ([0.1, 0.2, 0.1, 0.4], 0.0, Some([10, 10, 10, 20])),
            ([0.101, 0.2, 0.1, 0.4], 0.0, Some([10, 10, 11, 20])),
            ([0.1, 0.2, 0.1, 0.4], 0.5, Some([5, 0, 20, 40])),
            ([0.95, 0.0, 0.1, 1.0], 1.0, Some([85, 0, 15, 50])),
            ([-0.5, 0.0, 0.2, 1.0], 0.0, None),
            ([0.5, 0.5, 0.0, 0.0], 0.0, None),
        ] {
            let [x, y, width, height] = bbox;
            let made = region(Bbox { x, y, width, height }, margin, FRAME).map(sides);
            assert_eq!(made, expected, "{bbox:?} {margin}");
        }
    }

    #[test]
    fn the_surest_of_the_labels_that_are_asked_for_are_chosen() {
        let detections =
            [seen("car", 0.5, 0.0), seen("person", 0.9, 0.2), seen("car", 0.8, 0.4), seen("car", 0.3, 0.6)];
        let places = |config: &str| -> Vec<usize> {
            plugin(config).chosen(&detections, FRAME).into_iter().map(|(at, _)| at).collect()
        };
        assert_eq!(places(r#"{"model": "kind"}"#), [1, 2, 0, 3]);
        assert_eq!(places(r#"{"model": "kind", "of": ["car"], "max_objects": 2}"#), [2, 0]);
        assert!(places(r#"{"model": "kind", "of": ["bus"]}"#).is_empty());
    }

    #[test]
    fn each_object_is_shown_to_the_model() {
        let scores = |region: Rect| {
            Output::floats("y", &[1, 2], if region.x == 0 { vec![0.75, 0.25] } else { vec![0.25, 0.75] })
        };
        testing::model("kind", Size { width: 32, height: 32 }, &["van", "bus"], move |region| vec![scores(region)]);
        let mut hook: ClassifyObjects = testing::start(r#"{"model": "kind", "of": ["car"]}"#).unwrap();
        let seen = vec![seen("car", 0.5, 0.5), seen("person", 0.9, 0.2), seen("car", 0.8, 0.0)];
        let outcome = hook.postprocess(&Scene::new(100, 50).inference(), seen).unwrap();
        let kinds: Vec<_> = outcome.detections.iter().map(|d| d.attribute("kind").cloned()).collect();
        assert!(matches!(&kinds[..], [Some(Value::Text(a)), None, Some(Value::Text(c))] if a == "bus" && c == "van"));
        let Err(Error::InvalidConfig(message)) = testing::start::<ClassifyObjects>(r#"{"model": "plate"}"#) else {
            panic!("it has no such model")
        };
        assert!(message.contains("no model `plate`; its `models` are `kind`"), "{message}");
    }

    #[test]
    fn the_best_class_is_told_by_its_name_or_its_number_if_it_is_sure() {
        let told = |scores: &[f32]| {
            let mut detection = seen("car", 0.5, 0.0);
            plugin(r#"{"model": "kind"}"#).tell(&mut detection, scores);
            let all = detection.attributes.iter().map(|a| format!("{} {:?}", a.key, a.value)).collect::<Vec<_>>();
            assert_eq!(detection.label.as_deref(), Some("car"));
            all.join(", ")
        };
        assert_eq!(told(&[0.75, 0.25]), r#"kind Value::Text("van"), kind_score Value::Number(0.75)"#);
        assert_eq!(told(&[0.0, 0.5]), r#"kind Value::Text("1"), kind_score Value::Number(0.5)"#);
        assert_eq!(told(&[0.4, 0.45]), "");
        assert_eq!(told(&[]), "");
    }
}
