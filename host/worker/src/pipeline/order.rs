//! Hands frames to several lanes and gets them back in their order.
//!
//! A lane takes a frame and writes its own number down in one step. Who reads the numbers knows which lane
//! has the next frame, so nothing is sorted and nothing is kept but what lies in the bounded channels.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SendError, SyncSender, sync_channel},
    },
    time::Instant,
};

use parking_lot::Mutex;

/// Frames that a lane may have finished before it is their turn.
const FINISHED: usize = 1;

/// One end of what the lanes share.
pub(super) struct Intake<T>(Mutex<Option<Taking<T>>>);

struct Taking<T> {
    frames: Receiver<T>,
    /// The lane of each frame that was taken.
    order: SyncSender<usize>,
}

/// The other end.
pub(super) struct InOrder<T> {
    order: Receiver<usize>,
    lanes: Vec<Receiver<T>>,
    /// The lane of the next frame, where that is known but its frame is not here.
    due: Option<usize>,
}

/// Connects `lanes` lanes between `frames` and what comes out in order; with the senders of the
/// lanes. Each takes up to `most` frames at a time.
pub(super) fn connect<T>(
    frames: Receiver<T>,
    lanes: usize,
    most: usize,
) -> (Arc<Intake<T>>, Vec<SyncSender<T>>, InOrder<T>) {
    let (senders, lanes): (Vec<_>, Vec<_>) = (0..lanes).map(|_| sync_channel(FINISHED)).unzip();
    // Each lane has those that it took, and those that it has finished: no number waits for room.
    let (sender, order) = sync_channel(lanes.len() * (FINISHED + most));
    let intake = Intake(Mutex::new(Some(Taking { frames, order: sender })));
    (Arc::new(intake), senders, InOrder { order, lanes, due: None })
}

/// The lane of frames that are in their order anyway.
pub(super) struct OneLane<T> {
    order: SyncSender<usize>,
    frames: SyncSender<T>,
}

/// One lane, with room for `most` frames, and where they come out.
pub(super) fn one_lane<T>(most: usize) -> (OneLane<T>, InOrder<T>) {
    let ((frames, lane), (sender, order)) = (sync_channel(most), sync_channel(most + 1));
    (OneLane { order: sender, frames }, InOrder { order, lanes: vec![lane], due: None })
}

impl<T> OneLane<T> {
    /// # Errors
    /// When nobody takes frames any more.
    pub(super) fn send(&self, frame: T) -> Result<(), SendError<T>> {
        match self.order.send(0) {
            Ok(()) => self.frames.send(frame),
            Err(_) => Err(SendError(frame)),
        }
    }
}

impl<T> Intake<T> {
    /// Waits for the next `most` frames and adds them to `taken`: fewer at the end, and none after
    /// it.
    pub(super) fn take(&self, lane: usize, most: usize, taken: &mut Vec<T>) {
        let mut taking = self.0.lock();
        for _ in 0..most {
            let Some(Taking { frames, order }) = taking.as_ref() else { return };
            let frame = frames.recv().ok().filter(|_| order.send(lane).is_ok());
            if frame.is_none() {
                // Lanes that may not work at present would keep it open.
                *taking = None;
            }
            taken.extend(frame);
        }
    }

    /// No frame is taken any more.
    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }
}

impl<T> InOrder<T> {
    /// Waits for the next frame; `None` after the last one, or if the lane that had it is gone.
    pub(super) fn wait(&mut self) -> Option<T> {
        let lane = self.due.take().or_else(|| self.order.recv().ok())?;
        self.lanes[lane].recv().ok()
    }

    /// The same, until this time.
    pub(super) fn wait_until(&mut self, end: Instant) -> Result<T, RecvTimeoutError> {
        let left = || end.saturating_duration_since(Instant::now());
        let lane = self.due.take().map_or_else(|| self.order.recv_timeout(left()), Ok)?;
        let frame = self.lanes[lane].recv_timeout(left());
        self.due = matches!(frame, Err(RecvTimeoutError::Timeout)).then_some(lane);
        frame
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::mpsc::TrySendError};

    use proptest::prelude::*;

    use super::*;

    fn take<T>(intake: &Intake<T>, lane: usize, most: usize) -> VecDeque<T> {
        let mut taken = Vec::new();
        intake.take(lane, most, &mut taken);
        taken.into()
    }

    proptest! {
        /// `steps` says which lane goes on next: it takes frames, or finishes one of those that it
        /// has.
        #[test]
        fn whichever_lane_is_faster_frames_keep_their_order(
            lanes in 1..6_usize, most in 1..4_usize, steps in prop::collection::vec(0..6_usize, 0..200), read in prop::collection::vec(any::<bool>(), 200),
        ) {
            let frames = (steps.len() * most) as u64 + 1;
            let (sender, receiver) = sync_channel(frames as usize);
            (0..frames).for_each(|frame| sender.send(frame).unwrap());
            drop(sender);
            let (intake, senders, mut ordered) = connect(receiver, lanes, most);
            let (mut held, mut taken, mut out) = (vec![VecDeque::new(); lanes], 0, Vec::new());
            for (lane, reads) in steps.iter().map(|step| step % lanes).zip(read) {
                match held[lane].pop_front() {
                    None => {
                        held[lane] = take(&intake, lane, most);
                        taken += held[lane].len();
                    }
                    Some(frame) => if let Err(TrySendError::Full(frame)) = senders[lane].try_send(frame) {
                        held[lane].push_front(frame);
                    },
                }
                if reads {
                    out.extend(ordered.wait_until(Instant::now()));
                }
                prop_assert!(taken - out.len() <= lanes * (FINISHED + most), "more are under way than lanes hold");
            }
            // A thread each, as in a worker: the rest.
            std::thread::scope(|scope| {
                for (lane, (sender, mut held)) in senders.into_iter().zip(held).enumerate() {
                    let intake = &intake;
                    scope.spawn(move || loop {
                        held.drain(..).for_each(|frame| sender.send(frame).unwrap());
                        held = take(intake, lane, most);
                        if held.is_empty() {
                            break;
                        }
                    });
                }
                out.extend(std::iter::from_fn(|| ordered.wait()));
            });
            prop_assert_eq!(out, (0..frames).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_frames_before_a_lost_one_come_and_none_behind_it() {
        let (sender, receiver) = sync_channel(4);
        (0..4).for_each(|frame| sender.send(frame).unwrap());
        let (intake, mut senders, mut ordered) = connect(receiver, 2, 1);
        let taken: Vec<_> = [0, 1, 0].into_iter().map(|lane| take(&intake, lane, 1)[0]).collect();
        senders[0].send(taken[0]).unwrap();
        drop(senders.remove(1));
        senders[0].try_send(taken[2]).ok();
        intake.close();
        assert!(take(&intake, 0, 1).is_empty());
        assert!(sender.send(4).is_err(), "what decodes hears of it");
        assert_eq!([ordered.wait(), ordered.wait()], [Some(0), None]);
    }
}
