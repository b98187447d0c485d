//! What reads bytes of strangers, fed with anything: one function a parser.
//!
//! Each of them panics where its parser breaks a promise; that the parser itself panics, hangs or takes all
//! memory shows by itself. `tests/seeds.rs` runs them on the seeds and on damaged copies, `scripts/fuzz.sh`
//! guided by coverage.

mod abi;
mod decoder;
mod http;
#[path = "../../host/engine/src/media.rs"]
#[allow(dead_code, reason = "some of it is for the engine alone")]
mod media;
#[path = "../../host/engine/src/passed_on.rs"]
mod passed_on;
#[path = "../../host/engine/src/range.rs"]
#[allow(dead_code, reason = "the engine counts what is mended")]
mod range;
#[path = "../../host/runner/src/records.rs"]
mod records;
mod result;
#[path = "../../host/engine/src/returned.rs"]
#[allow(dead_code, reason = "the engine says why")]
mod returned;

pub use result::hook_result;

use std::io::Cursor;

use bytes::Bytes;
use framehook_core::{
    artifact::{ModelManifest, PluginManifest, VideoManifest},
    ids::ScenarioId,
    job::{Control, Job, Report},
    message::{Envelope, frame_of},
    probe::{ConfigVerdict, MAX_FINDINGS, MAX_TEXT, Verdict},
    recorded::Sent,
};
use framehook_formats::{cut, isobmff, onnx, outputs as recorded};
use futures::stream;
use http::page;
use multer::{Constraints, Multipart, SizeLimit};
use records::RecordReader;
use serde::de::DeserializeOwned;

/// What passes the walk holds no external tensor, unless ONNX Runtime would read it as another
/// format, by a decoder that knows nothing of the walk.
pub fn model(data: &[u8]) {
    match onnx::check(data) {
        Ok(()) => assert!(onnx::is_ort(data) || !decoder::has_external(data), "a tensor in another file passed"),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
}

/// What a probe or the plugin host answers is cut to its limits.
pub fn manifest(data: &[u8]) {
    fn verdict<T: DeserializeOwned>(data: &[u8]) {
        let read = serde_json::from_slice::<Verdict<T>>(data);
        if let Ok(Verdict::Findings(findings)) = read.map(Verdict::bounded) {
            assert!(findings.len() <= MAX_FINDINGS);
            assert!(findings.iter().all(|f| f.code.len() <= MAX_TEXT && is_sentence(&f.message)));
        }
    }
    verdict::<PluginManifest>(data);
    verdict::<ModelManifest>(data);
    verdict::<VideoManifest>(data);
    if let Ok(verdict) = serde_json::from_slice::<ConfigVerdict>(data) {
        let problems = verdict.bounded().problems;
        assert!(problems.len() <= MAX_FINDINGS);
        assert!(problems.iter().all(|p| p.path.len() <= MAX_TEXT && is_sentence(&p.message)));
    }
}

fn is_sentence(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.contains(char::is_control)
}

/// An envelope that can be read can be written, and reads the same again.
pub fn envelope(data: &[u8]) {
    // What is no envelope may still say of which frame it is.
    let _ = frame_of(data);
    let Ok(envelope) = Envelope::parse(data) else { return };
    let written = serde_json::to_vec(&envelope).expect("an envelope can be written");
    let again = Envelope::parse(&written).expect("what was written can be read");
    assert_eq!(again.key(), envelope.key());
    assert_eq!(serde_json::to_vec(&again).expect("an envelope can be written"), written);
}

/// A form keeps to its limit, in whatever pieces it comes. The first byte says how long these are.
pub fn multipart(data: &[u8]) {
    const MOST: u64 = 1 << 16;
    let Some((piece, body)) = data.split_first() else { return };
    let pieces =
        body.chunks(usize::from(*piece) + 1).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(MOST));
    let mut form = Multipart::with_constraints(stream::iter(pieces), "X", limits);
    block_on(async {
        let mut bytes = 0;
        while let Ok(Some(mut field)) = form.next_field().await {
            while let Ok(Some(chunk)) = field.chunk().await {
                bytes += chunk.len() as u64;
            }
        }
        assert!(bytes <= MOST);
    });
}

/// A cursor that is taken is one that this release writes.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let same = |written: String| assert!(written.eq_ignore_ascii_case(text), "{text:?} {written:?}");
    // That of the seeds.
    let id = ScenarioId(uuid::Uuid::from_u128(0x5ce0_a210));
    if let Ok(Some(pts_us)) = page::parse_prediction_cursor(id, Some(text)) {
        let written = page::prediction_cursor(id, pts_us);
        let place = written.strip_suffix(&id.0.simple().to_string()).expect("a cursor ends with its scenario");
        // Release 0.1.0 wrote the place alone.
        same(if text.len() == place.len() { place.to_owned() } else { written });
    }
    if let Ok(Some(sequence)) = page::parse_history_cursor(Some(text)) {
        same(page::history_cursor(sequence));
    }
    if let Ok(Some(sequence)) = page::parse_log_cursor(Some(text)) {
        same(page::log_cursor(sequence));
    }
    // An id may be written in several ways.
    if let Ok(Some(id)) = page::parse_scenario_cursor(Some(text)) {
        assert_eq!(page::parse_scenario_cursor(Some(&page::scenario_cursor(id))).ok(), Some(Some(id)));
    }
}

/// A file that is cut says so truly, whatever its container.
pub fn mp4(data: &[u8]) {
    let outline = isobmff::read(&mut Cursor::new(data)).expect("memory can be read");
    let other = cut::read(&mut Cursor::new(data)).expect("memory can be read");
    for cut in outline.and_then(|outline| outline.cut).into_iter().chain(other) {
        assert_eq!(cut.has, data.len() as u64);
        assert!(cut.needs > cut.has);
    }
}

/// A file of recorded outputs takes no more memory than one output may, whatever it claims, and what a worker
/// sends of them is read whole or not at all.
pub fn outputs(data: &[u8]) {
    const MOST: usize = 1 << 20;
    if let Some(Sent::Frame(_, body) | Sent::Opening(body)) = Sent::read(data) {
        assert!(body.len() < data.len());
    }
    let Ok(mut file) = recorded::Reader::new(data) else { return };
    while let Ok(Some(mut entry)) = file.entry() {
        let mut bytes = 0;
        // Whichever width a column has, it is read by one of these.
        while entry.column::<1>(MOST, |_| bytes += 1).is_ok()
            || entry.column::<4>(MOST, |_| bytes += 4).is_ok()
            || entry.column::<8>(MOST, |_| bytes += 8).is_ok()
        {
            assert!(bytes <= MOST.saturating_mul(data.len()));
        }
    }
}

/// Both ends of a worker's pipes.
pub fn records(data: &[u8]) {
    fn read_all<T: DeserializeOwned>(bytes: &[u8]) {
        let mut reader = RecordReader::<_, T>::new(bytes, framehook_core::job::MAX_RECORD);
        block_on(async { while let Ok(Some(_)) = reader.next().await {} });
        let mut rest = bytes;
        while let Ok(Some(_)) = framehook_core::job::read_record::<T>(&mut rest) {}
    }
    read_all::<Report>(data);
    read_all::<Control>(data);
    read_all::<Job>(data);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing").block_on(future)
}
