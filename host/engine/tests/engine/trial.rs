//! Golden cases of kept outputs: the same answers as in a chain of a worker.

use framehook_core::spec::OnPluginFailure as Policy;
use framehook_engine::{
    chain::{Chain, Stage},
    trial::{self, Trial},
};
use serde_json::json;

use crate::{
    stock::{head, run},
    support::{ENGINE, job, settings},
};

/// As `numpy.save` writes floats.
fn npy(shape: &str, data: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let data = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\0".to_vec(), (header.len() as u16).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
}

#[test]
fn a_trial_says_what_a_worker_would() {
    let hook = job("yolo", json!({"labels": ["person", "car", "truck"]}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("output0.npy");
    std::fs::write(&file, npy("(1, 7, 960)", &head(0.25))).unwrap();
    let case = |input, file| Trial {
        hook: hook.clone(),
        frame: [640, 360],
        input,
        is_stretched: false,
        is_centered: true,
        outputs: vec![("output0".into(), file)],
        is_measured: false,
    };
    let tried = trial::run(&case([320, 192], file.clone())).unwrap();
    let (settings, _) = settings(Policy::FailScenario);
    let mut chain = Chain::start(&ENGINE, Stage::Post, std::slice::from_ref(&hook), &settings).unwrap();
    let expected = run(&mut chain, 0, &[1, 7, 960], &head(0.25));
    assert_eq!((tried.detections.len(), tried.failures.len()), (1, 0), "{tried:?}");
    assert_eq!(tried.detections, expected.detections);
    assert!(tried.measured.is_none());
    let measured =
        trial::run(&Trial { is_measured: true, ..case([320, 192], file.clone()) }).unwrap().measured.unwrap();
    assert!(measured.p50_us > 0.0 && measured.p50_us <= measured.p99_us, "{measured:?}");
    // Four numbers of one box, and what of the box itself the hook asks for.
    assert!((16..1000).contains(&measured.copied_bytes) && measured.memory_bytes > 1 << 16, "{measured:?}");
    let why = trial::run(&case([320, 192], folder.path().join("missing.npy"))).unwrap_err();
    assert!(why.message.contains("output `output0`"), "{}", why.message);
    // What does not fit the plugin is its failure.
    std::fs::write(&file, npy("(1, 3)", &[0.0; 3])).unwrap();
    assert!(!matches!(trial::run(&case([320, 192], file)), Ok(tried) if tried.failures.is_empty()));
}
