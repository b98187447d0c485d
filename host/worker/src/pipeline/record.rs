//! Between model and post hooks, where a scenario records: reports the outputs of each frame.
//!
//! Invariant: the outputs of a frame are on their way to the runner before its prediction is. Packing them
//! takes a thread of its own, so hooks and model wait for it only where it is the slowest.

use framehook_formats::outputs::Writer;

use super::{
    InFlight, Shared, Work,
    order::{InOrder, OneLane},
};
use crate::recorded::{self, ToRecord};

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) frames: InOrder<InFlight>,
    pub(super) out: OneLane<InFlight>,
}

impl Stage {
    pub(super) fn run(mut self, opening: &[u8]) {
        self.shared.reporter.opening(opening);
        let mut writer = Writer::default();
        while let Some(frame) = self.frames.wait() {
            let outcome = match &frame.work {
                Work::Inferred(outputs) => Ok(&outputs[..]),
                Work::Skip(skipped) => Err(skipped),
                // The model ends with what it has not run.
                Work::Infer(_) => return,
            };
            let &InFlight { position, left_out, damaged, size, geometry, ref failures, .. } = &frame;
            let to_record = ToRecord { position, left_out, damaged, size, geometry, failures, outcome };
            self.shared.reporter.outputs(position, recorded::write(&mut writer, &to_record));
            if self.out.send(frame).is_err() {
                // The last stage ended, and has said why.
                return;
            }
        }
    }
}
