//! The numbers that a hook keeps of its own. They outlive its instances, and end with its worker, which tells
//! them.
//!
//! Invariant: a hook that gives whatever it likes gets an answer, costs one line of its log, and grows
//! nothing without bound.

use std::sync::Arc;

use framehook_core::{
    hook_metrics::{self, Histogram, Metric},
    job::LogLevel,
};
use parking_lot::Mutex;

use crate::log::Logger;

/// The metrics of one hook. Clones share them.
pub(crate) type Metrics = Arc<Mutex<Named>>;

#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Names that there may be.
    most: usize,
    metrics: hook_metrics::Metrics,
    has_told: bool,
}

/// Why a number is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    BadName,
    BadValue,
    WrongKind,
    TooMany,
}

impl NotTaken {
    const fn words(self) -> &'static str {
        match self {
            Self::BadName => "a name has up to 64 characters: a letter from a to z, then letters, digits and `_`",
            Self::BadValue => "a value must be finite",
            Self::WrongKind => "this name is that of another kind of metric",
            Self::TooMany => "the hook has as many names as it may",
        }
    }
}

impl Named {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub(crate) fn now(&self) -> hook_metrics::Metrics {
        self.metrics.clone()
    }

    pub(crate) fn add(&mut self, name: &str, more: u64) -> Result<(), NotTaken> {
        match self.named(name, || Metric::Counter(0))? {
            Metric::Counter(count) => *count = count.saturating_add(more),
            _ => return Err(NotTaken::WrongKind),
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) -> Result<(), NotTaken> {
        must_be_finite(value)?;
        match self.named(name, || Metric::Gauge(value))? {
            Metric::Gauge(gauge) => *gauge = value,
            _ => return Err(NotTaken::WrongKind),
        }
        Ok(())
    }

    pub(crate) fn observe(&mut self, name: &str, value: f64) -> Result<(), NotTaken> {
        must_be_finite(value)?;
        match self.named(name, || Metric::Histogram(Histogram::default()))? {
            Metric::Histogram(histogram) => histogram.observe(value),
            _ => return Err(NotTaken::WrongKind),
        }
        Ok(())
    }

    /// The metric of a name, a new one if there is none.
    fn named(&mut self, name: &str, new: impl FnOnce() -> Metric) -> Result<&mut Metric, NotTaken> {
        if !self.metrics.contains_key(name) {
            if !hook_metrics::is_name(name) {
                return Err(NotTaken::BadName);
            }
            if self.metrics.len() >= self.most {
                return Err(NotTaken::TooMany);
            }
            self.metrics.insert(name.to_owned(), new());
        }
        // It is there.
        self.metrics.get_mut(name).ok_or(NotTaken::BadName)
    }
}

fn must_be_finite(value: f64) -> Result<(), NotTaken> {
    if value.is_finite() { Ok(()) } else { Err(NotTaken::BadValue) }
}

/// Does this to the metrics. The first time that a number is not taken, the log says why.
pub(crate) fn take(
    metrics: &Metrics,
    logger: &Logger,
    name: &str,
    change: impl FnOnce(&mut Named) -> Result<(), NotTaken>,
) -> Result<(), NotTaken> {
    let mut metrics = metrics.lock();
    let taken = change(&mut metrics);
    if let Err(why) = taken
        && !std::mem::replace(&mut metrics.has_told, true)
    {
        let line = format!("metric `{name}` was not taken, nor may others be: {}", why.words());
        logger.tell(LogLevel::Warn, &line);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_keeps_what_it_is_for() {
        let mut named = Named::new(3);
        named.add("n", 2).unwrap();
        named.add("n", u64::MAX).unwrap();
        named.set("g", 2.5).unwrap();
        named.set("g", -1.5).unwrap();
        named.observe("h", 0.5).unwrap();
        named.observe("h", 1.0).unwrap();
        let now = named.now();
        assert_eq!((&now["n"], &now["g"]), (&Metric::Counter(u64::MAX), &Metric::Gauge(-1.5)));
        assert!(matches!(&now["h"], Metric::Histogram(h) if (h.count(), h.sum) == (2, 1.5)), "{now:?}");
    }

    #[test]
    fn what_is_not_taken_changes_nothing() {
        let mut named = Named::new(2);
        named.add("n", 1).unwrap();
        assert_eq!(named.add("N", 1), Err(NotTaken::BadName));
        assert_eq!(named.set("n", 1.0), Err(NotTaken::WrongKind));
        assert_eq!(named.observe("n", 1.0), Err(NotTaken::WrongKind));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(named.set("g", value), Err(NotTaken::BadValue));
            assert_eq!(named.observe("g", value), Err(NotTaken::BadValue));
        }
        assert_eq!(named.now().len(), 1, "a value that is not taken makes no name");
        named.set("g", 1.0).unwrap();
        assert_eq!(named.add("third", 1), Err(NotTaken::TooMany));
        assert_eq!(named.add("n", 1), Ok(()), "those that are there go on");
        assert_eq!(named.now().len(), 2);
    }
}
