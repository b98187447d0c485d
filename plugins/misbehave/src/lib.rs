//! Every way a plugin can go wrong, for the tests of the host. Never deploy it.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use framehook_sdk::{
    Bbox, ConfigProblem, Decision, Detection, Element, Error, Event, Frame, Hook, Inference, Outcome, PostHook,
    PreHook, Rect, Severity, Stream, Tensor, TensorDesc, clock, metrics, model, state,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: Mode,
    /// Misbehave on every n-th call of an instance's life as the host's state counts it; 1 is always.
    #[serde(default = "always")]
    every: u64,
    /// Misbehave on these calls only, from the first to the last.
    #[serde(default)]
    calls: Option<(u64, u64)>,
    /// Print a line to stderr on each call that goes well.
    #[serde(default)]
    chatty: bool,
    /// Misbehave when it starts instead of on a frame.
    #[serde(default)]
    at_start: bool,
    /// Misbehave while it judges its configuration instead of on a frame.
    #[serde(default)]
    at_check: bool,
    /// Keep busy this long on each frame, to make a short video last. (A plugin may not sleep.)
    #[serde(default)]
    delay_ms: u64,
    /// Keep so many bytes, which change on each frame.
    #[serde(default)]
    keep_bytes: usize,
    /// Whoever gives it a value has the host evaluate a schema that takes for ever.
    #[serde(default, rename = "bomb")]
    #[schemars(schema_with = "bomb")]
    _bomb: bool,
}

/// Each part refers twice to the next: 2^60 ways to the last.
fn bomb(_: &mut SchemaGenerator) -> Schema {
    let part = |n: u32| format!("#/properties/bomb/$defs/{n}");
    let twice = |n: u32| json_schema!({"allOf": [{"$ref": part(n)}, {"$ref": part(n)}]});
    let parts: BTreeMap<_, _> =
        (0..60).map(|n| (n.to_string(), twice(n + 1))).chain([("60".into(), json_schema!(true))]).collect();
    json_schema!({"$ref": part(0), "$defs": parts})
}

fn always() -> u64 {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    None,
    Trap,
    Loop,
    Sleep,
    Allocate,
    Recurse,
    Panic,
    /// Ends as a panic does in a component that was not built with the SDK.
    PanicPrinted,
    HandleFlood,
    /// Runs a further model for ever, and keeps all that it gets.
    RunModels,
    FloodLog,
    /// A line that looks like two, the second one the platform's.
    ForgeLog,
    Print,
    /// Rows that cannot be between rows that can, and events about both.
    OutOfRange,
    BadSubject,
    TooManyDetections,
    /// 4.3 MiB of JSON, within every other limit.
    LargePrediction,
    WrongShape,
    OutOfBounds,
    BadInput,
    Transient,
    Fatal,
    InvalidConfig,
    Skip,
    Infer,
    /// Keeps a metric of each kind.
    Measure,
    /// Keeps metrics that it may not, and says what is answered to each.
    MeasureBadly,
    /// Says what it is shown of the model's outputs: an event for each.
    Tell,
}

struct Misbehave(Config);

impl Hook for Misbehave {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        if config.at_start {
            misbehave(config.mode)?;
        }
        Ok(Self(config))
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        if config.at_check {
            misbehave(config.mode).ok();
        }
        Vec::new()
    }

    fn labels(&self) -> Vec<String> {
        vec!["zero".into(), "one".into()]
    }
}

impl Misbehave {
    fn keep_busy(&self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(self.0.delay_ms) {
            black_box(());
        }
    }

    /// Whether this call is one of those that go wrong. Counted by the host, so it outlives a trap.
    fn now(&self) -> bool {
        let calls = state::get("calls").and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes) + 1;
        state::set("calls", &calls.to_le_bytes()).ok();
        if self.0.keep_bytes > 0 {
            state::set("kept", &vec![calls as u8; self.0.keep_bytes]).ok();
        }
        let is_meant = self.0.calls.is_none_or(|(first, last)| (first..=last).contains(&calls));
        let now = !self.0.at_start && is_meant && calls.is_multiple_of(self.0.every);
        if self.0.chatty && !now {
            eprintln!("all is well");
        }
        now
    }
}

impl PreHook for Misbehave {
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error> {
        self.keep_busy();
        if !self.now() {
            return Ok(Decision::Pass);
        }
        let size = frame.meta().size;
        let whole = Rect { x: 0, y: 0, width: size.width, height: size.height };
        match self.0.mode {
            Mode::Skip => Ok(Decision::Skip("because".into())),
            Mode::Infer => {
                let (tensor, geometry) = frame.to_tensor(whole)?;
                Ok(Decision::Infer(framehook_sdk::Prepared { tensor, geometry }))
            }
            Mode::WrongShape => {
                let tensor = Tensor::from_f32(&[1, 2], &[0.0, 1.0])?;
                let (_, geometry) = frame.to_tensor(whole)?;
                Ok(Decision::Infer(framehook_sdk::Prepared { tensor, geometry }))
            }
            Mode::OutOfBounds => {
                frame.read(Rect { x: u32::MAX, ..whole }, size, framehook_sdk::PixelFormat::Gray)?;
                Ok(Decision::Pass)
            }
            mode => misbehave(mode).map(|()| Decision::Pass),
        }
    }
}

impl PostHook for Misbehave {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        self.keep_busy();
        let mut events = Vec::new();
        if self.now() {
            let bbox = Bbox { x: 0.1, y: 0.2, width: 0.3, height: 0.4 };
            let one = Detection { track_id: Some(7), ..Detection::new(1, 0.5, bbox) };
            match self.0.mode {
                Mode::OutOfRange => {
                    let not_finite = Detection { score: f32::NAN, ..one.clone() };
                    let outside = Detection { bbox: Bbox { x: 1.5, ..bbox }, ..one.clone() };
                    let sure = Detection { score: 2.5, ..one.clone() };
                    let wide = Detection { bbox: Bbox { x: 0.25, width: 3.0, ..bbox }, ..one.clone() };
                    detections = vec![not_finite, sure, outside, wide, one];
                    events.push(about("mixed", &[0, 1, 4]));
                    events.push(about("dropped", &[0, 2]));
                }
                Mode::LargePrediction => {
                    let keypoints = vec![framehook_sdk::Point { x: 0.123_456_79, y: 0.876_543_2 }; 10];
                    detections.resize(10_000, Detection { keypoints, ..one });
                }
                Mode::TooManyDetections => detections.resize(20_000, one),
                Mode::BadSubject => events.push(about("bad", &[99])),
                Mode::OutOfBounds => drop(inference.read_f32(0, u32::MAX, 2)?),
                Mode::None => detections.push(one),
                Mode::Tell => {
                    for (output, at) in inference.outputs().iter().zip(0..) {
                        events.push(tell(inference, output, at)?);
                    }
                }
                Mode::Measure => measure().ok().unwrap_or_default(),
                Mode::MeasureBadly => events.push(measure_badly()),
                mode => misbehave(mode)?,
            }
        }
        Ok(Outcome { detections, events })
    }

    fn flush(&mut self) -> Result<Vec<Event>, Error> {
        let now = clock::now_us().to_string();
        Ok(vec![Event::new("flushed").severity(Severity::Warning).with("now_us", now)])
    }
}

fn measure() -> Result<(), metrics::MetricError> {
    metrics::add("calls", 1)?;
    metrics::set("level", 2.5)?;
    metrics::observe("took_seconds", 0.25)
}

fn measure_badly() -> Event {
    let long = "n".repeat(65);
    let answers = [
        metrics::add("Calls", 1),
        metrics::add("", 1),
        metrics::add(&long, 1),
        metrics::set("level", f64::NAN),
        metrics::observe("level", f64::INFINITY),
        metrics::add("kept", 1),
        metrics::set("kept", 1.0),
        metrics::observe("kept", 1.0),
    ];
    let word = |answer: Result<(), metrics::MetricError>| answer.map_or_else(|why| why.name(), |()| "ok");
    let answers: Vec<_> = answers.into_iter().map(word).collect();
    let taken = (1..100).take_while(|n| metrics::set(&format!("m{n}"), 1.0).is_ok()).count() + 1;
    let last = metrics::set("one_more", 1.0);
    Event::new("measured")
        .with("answers", answers.join(" "))
        .with("taken", taken)
        .with("last", word(last))
        .with("still", word(metrics::add("kept", 1)))
}

fn about(kind: &str, subjects: &[u32]) -> Event {
    Event { subjects: subjects.to_vec(), ..Event::new(kind) }
}

/// An output with its first numbers, or texts.
fn tell(inference: &Inference, output: &TensorDesc, at: u32) -> Result<Event, Error> {
    const MOST: u32 = 64;
    let TensorDesc { name, shape, element } = output;
    let count = shape.iter().product::<u32>().min(MOST);
    let numbers = match element {
        Element::Text => inference.read_text(at, 0, count)?.join(", "),
        _ => format!("{:?}", inference.read_f32(at, 0, count)?),
    };
    Ok(Event::new("output").with("name", name.as_str()).with("shape", format!("{shape:?}")).with("numbers", numbers))
}

fn misbehave(mode: Mode) -> Result<(), Error> {
    match mode {
        #[cfg(target_family = "wasm")]
        Mode::Trap => core::arch::wasm32::unreachable(),
        Mode::Loop => loop {
            black_box(());
        },
        Mode::Sleep => std::thread::sleep(Duration::from_secs(3600)),
        Mode::Allocate => {
            let mut hoard = Vec::new();
            loop {
                // Never written to: it is the limit of memory that must end this, not the deadline.
                hoard.push(black_box(Vec::<u8>::with_capacity(1 << 20)));
            }
        }
        Mode::Recurse => assert!(black_box(recurse(0)) != 1),
        Mode::Panic => panic!("this plugin panics on purpose"),
        #[cfg(target_family = "wasm")]
        Mode::PanicPrinted => {
            eprintln!("\nthread '<unnamed>' (1) panicked at src/other.rs:3:5:\nprinted on purpose");
            eprintln!("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace");
            core::arch::wasm32::unreachable()
        }
        Mode::HandleFlood => {
            let tensors: Result<Vec<_>, _> = (0..1000).map(|_| Tensor::from_f32(&[1], &[0.0])).collect();
            drop(tensors?);
        }
        Mode::RunModels => {
            let mut hoard = Vec::new();
            loop {
                let all = vec![Rect { x: 0, y: 0, width: 8, height: 8 }; 3];
                hoard.extend(model::run("kind", &all));
            }
        }
        Mode::FloodLog => (0..1000).for_each(|n| framehook_sdk::info!("line {n}")),
        Mode::ForgeLog => {
            framehook_sdk::info!("fine\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31mred \u{202e}dne");
            eprintln!("printed\r2026-01-01T00:00:00Z ERROR forged");
        }
        Mode::Print => {
            println!("printed to stdout");
            eprintln!("printed to stderr");
        }
        Mode::BadInput => return Err(Error::BadInput("on purpose".into())),
        Mode::Transient => return Err(Error::Transient("on purpose".into())),
        Mode::Fatal => return Err(Error::Fatal("on purpose".into())),
        Mode::InvalidConfig => return Err(Error::InvalidConfig("on purpose".into())),
        _ => {}
    }
    Ok(())
}

/// Frames small enough that the engine's stack ends before the one in memory.
fn recurse(depth: u64) -> u64 {
    // Never reached. Without it the compiler warns, rightly.
    if depth == u64::MAX {
        return 0;
    }
    recurse(black_box(depth + 1)).wrapping_mul(3) + depth
}

framehook_sdk::export!(pre + post: Misbehave);
