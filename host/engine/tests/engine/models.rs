//! Further models of a scenario, as hooks run them: by way of a double, which notes what it was asked.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use framehook_core::{job::HookJob, prediction::Attribute, reason::ReasonCode, spec::OnPluginFailure};
use framehook_engine::{
    Engine,
    chain::{After, Chain, ChainSettings, Stage},
    media::{Element, Elements, FramePixels, Geometry, Inference, Output, Region, Size, Tensor, TensorDesc},
    models::{ModelInfo, Models, NotRun, Run},
};
use serde_json::{Value, json};

use crate::support::{Flat, GEOMETRY, INPUT, SIZE, job, position, settings};

struct Double {
    list: Vec<ModelInfo>,
    /// Processor time that a run takes.
    busy: Duration,
    asked: Mutex<Vec<Vec<Region>>>,
}

impl Double {
    fn new(busy: Duration) -> Arc<Self> {
        let labels = vec!["van".to_owned(), "bus".to_owned()];
        let model = ModelInfo { name: "kind".into(), input_size: Size { width: 32, height: 32 }, labels };
        Arc::new(Self { list: vec![model], busy, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<Vec<Region>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Models for Double {
    fn list(&self) -> &[ModelInfo] {
        &self.list
    }

    fn run(&self, _: usize, _: &dyn FramePixels, regions: &[Region], _: Duration) -> Result<Vec<Run>, NotRun> {
        self.asked.lock().unwrap().push(regions.to_vec());
        let begun = Instant::now();
        while begun.elapsed() < self.busy {}
        let desc = TensorDesc { name: "y".into(), shape: vec![1, 2], element: Element::Float };
        let output = Output { desc, data: Elements::F32(vec![0.25, 0.75]) };
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        let run = Run { input_size: self.list[0].input_size, geometry, outputs: vec![output] };
        Ok(vec![run; regions.len()])
    }

    fn run_tensor(&self, _: usize, tensor: &Tensor) -> Result<Run, NotRun> {
        Err(NotRun::Unfit(format!("{:?} is no picture", tensor.shape)))
    }
}

fn chain(jobs: &[HookJob], models: &Arc<Double>) -> Chain {
    let settings = ChainSettings { models: Some(models.clone()), ..settings(OnPluginFailure::SkipFrame).0 };
    Chain::start(&Engine::loader().unwrap(), Stage::Post, jobs, &settings).unwrap()
}

fn call(chain: &mut Chain, frame: u64, pixels: Option<&dyn FramePixels>) -> After {
    let inference = Inference {
        position: position(frame),
        size: SIZE,
        input_size: INPUT,
        geometry: GEOMETRY,
        outputs: &[],
        pixels,
    };
    chain.postprocess(&inference).unwrap()
}

/// A hook that finds one object, and one that classifies it.
fn classified(config: Value) -> [HookJob; 2] {
    [job("misbehave", json!({"mode": "none"})), job("classify-objects", config)]
}

#[test]
fn an_object_is_shown_to_the_model_and_gets_its_class() {
    let models = Double::new(Duration::ZERO);
    let mut chain = chain(&classified(json!({"model": "kind"})), &models);
    let after = call(&mut chain, 0, Some(&Flat(7)));
    assert_eq!(after.failures, []);
    let [object] = &after.detections[..] else { panic!("{after:?}") };
    assert_eq!(object.attributes["kind"], Attribute::Text("bus".into()));
    assert_eq!(object.attributes["kind_score"], Attribute::Number(0.75));
    // 0.1, 0.2, 0.3 and 0.4 of 640 x 360.
    assert_eq!(models.asked(), [vec![Region { x: 64, y: 72, width: 192, height: 144 }]]);
}

#[test]
fn the_time_of_a_model_is_not_that_of_the_hook() {
    let models = Double::new(Duration::from_millis(100));
    let mut chain = chain(&classified(json!({"model": "kind"})), &models);
    // A hook itself may take 20 ms.
    for frame in 0..3 {
        assert_eq!(call(&mut chain, frame, Some(&Flat(7))).failures, []);
    }
    let stats = chain.stats();
    let hook = stats.iter().find(|hook| hook.model_us > 0).unwrap();
    assert!(hook.model_us >= 300_000 && hook.total_us < hook.model_us, "{hook:?}");
}

#[test]
fn a_model_that_the_scenario_lacks_is_named_with_those_that_it_has() {
    let settings =
        ChainSettings { models: Some(Double::new(Duration::ZERO)), ..settings(OnPluginFailure::SkipFrame).0 };
    let jobs = classified(json!({"model": "plate"}));
    let reason = Chain::start(&Engine::loader().unwrap(), Stage::Post, &jobs, &settings).err().unwrap();
    assert_eq!(reason.code, ReasonCode::PluginIncompatible);
    let words = "the scenario has no model `plate`; its `models` are `kind`";
    assert!(reason.message.contains(words), "{}", reason.message);
    let without = ChainSettings { models: None, ..settings };
    let reason = Chain::start(&Engine::loader().unwrap(), Stage::Post, &jobs, &without).err().unwrap();
    assert!(reason.message.contains("its `models` are none"), "{}", reason.message);
}

#[test]
fn a_frame_without_pixels_is_one_failure() {
    let models = Double::new(Duration::ZERO);
    let mut chain = chain(&classified(json!({"model": "kind"})), &models);
    let after = call(&mut chain, 0, None);
    assert!(after.failures[0].reason.message.contains("region that is not there"), "{after:?}");
    assert_eq!(call(&mut chain, 1, Some(&Flat(7))).failures, []);
}

#[test]
fn a_hook_that_runs_models_for_ever_ends_within_its_budget() {
    for busy in [Duration::ZERO, Duration::from_millis(40)] {
        let models = Double::new(busy);
        let limits = framehook_core::job::HookLimits { model_ms: 200, ..Default::default() };
        let settings = ChainSettings { models: Some(models.clone()), limits, ..settings(OnPluginFailure::SkipFrame).0 };
        let jobs = [job("misbehave", json!({"mode": "run-models"}))];
        let mut chain = Chain::start(&Engine::loader().unwrap(), Stage::Post, &jobs, &settings).unwrap();
        let after = call(&mut chain, 0, Some(&Flat(7)));
        assert_eq!(after.failures[0].reason.code, ReasonCode::PluginTimeout, "{after:?}");
        let runs: usize = models.asked().iter().map(Vec::len).sum();
        assert!(runs > 3 && runs <= if busy.is_zero() { 128 } else { 3 * 5 }, "{runs} runs with {busy:?} each");
    }
}
