//! Each parser on its seeds and on damaged copies of them: the short form of fuzzing, on any compiler.
//!
//! The damage is the same on every run, unless FRAMEHOOK_TEST_SEED says otherwise.

use std::{
    fs,
    time::{Duration, Instant},
};

use fastrand::Rng;

/// Damaged copies of a parser, if the time allows.
const RUNS: u32 = 200_000;
/// For one parser; all together stay near half a minute on two cores.
const TIME: Duration = Duration::from_secs(4);

fn check(name: &str, parser: fn(&[u8])) {
    let folder = format!("{}/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{folder} is empty");
    seeds.iter().for_each(|seed| parser(seed));
    parser(&[]);
    let seed = std::env::var("FRAMEHOOK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let mut rng = Rng::with_seed(seed);
    let end = Instant::now() + TIME;
    for _ in 0..RUNS {
        if Instant::now() > end {
            break;
        }
        parser(&damaged(&mut rng, &seeds));
    }
}

/// A seed with a few changes, of the kinds that parsers of lengths and texts break on.
fn damaged(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\r', b'\n'];
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    for _ in 0..rng.u32(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..64)).min(bytes.len());
        match rng.u32(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u32(..8),
            1 if at < bytes.len() => bytes[at] = TELLING[rng.usize(..TELLING.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[rng.usize(..seeds.len())];
                let from = rng.usize(..=other.len());
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

macro_rules! parsers {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name), framehook_fuzz::$name);
        }
    )*};
}

parsers!(model manifest envelope multipart cursor mp4 outputs records hook_result);
