//! Numbers that hooks keep of their own: counters, gauges and histograms, by name.
//!
//! Invariants: every number in them is finite, so that all of them can be written as JSON; counters and
//! histograms of several scenarios can be added up, because every histogram has the same buckets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Names of one hook: a dashboard for a plugin has a dozen.
const MAX_HOOK: usize = 64;
/// The same of all hooks of a scenario, so that what a scenario tells of itself stays below 200 KiB.
const MAX_SCENARIO: usize = 256;
/// Bytes of a name.
const MAX_NAME: usize = 64;

/// Upper bounds of the buckets, each included in its bucket; one more bucket has what is above the last. Fine
/// enough for a quantile within a factor of 2.5, from a millisecond to a day in seconds, from a thousandth to
/// a million in anything else.
pub const BOUNDS: [f64; 28] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3,
    2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6,
];

/// The metrics of a hook, by name.
pub type Metrics = BTreeMap<String, Metric>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Only grows.
    Counter(u64),
    /// What it was set to last.
    Gauge(f64),
    Histogram(Histogram),
}

/// How values are distributed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Histogram {
    /// All values added up.
    pub sum: f64,
    /// How many values are at most 0.001, 0.002, 0.005, 0.01 and so on to 1,000,000, and above the bound
    /// before; the last number: how many are above 1,000,000.
    #[schema(min_items = 29, max_items = 29)]
    pub buckets: Vec<u64>,
}

impl Histogram {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A value that is finite.
    pub fn observe(&mut self, value: f64) {
        self.buckets.resize(BOUNDS.len() + 1, 0);
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.sum = finite(self.sum + value);
    }

    fn add(&mut self, more: &Self) {
        self.buckets.resize(BOUNDS.len() + 1, 0);
        for (count, more) in self.buckets.iter_mut().zip(&more.buckets) {
            *count = count.saturating_add(*more);
        }
        self.sum = finite(self.sum + more.sum);
    }

    fn since(&self, before: &Self) -> Self {
        let before_each = before.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before_each).map(|(now, before)| now.saturating_sub(before)).collect();
        Self { sum: finite(self.sum - before.sum), buckets }
    }
}

/// JSON has no infinity.
const fn finite(number: f64) -> f64 {
    number.clamp(f64::MIN, f64::MAX)
}

impl Metric {
    /// Adds what another worker, or another scenario, has under the same name: of gauges, and where it is
    /// another kind there, that is what counts.
    fn add(&mut self, more: &Self) {
        match (&mut *self, more) {
            (Self::Counter(count), Self::Counter(more)) => *count = count.saturating_add(*more),
            (Self::Histogram(histogram), Self::Histogram(more)) => histogram.add(more),
            (_, more) => *self = more.clone(),
        }
    }

    /// What is new since it was `before`.
    fn since(&self, before: &Self) -> Self {
        match (self, before) {
            (Self::Counter(count), Self::Counter(before)) => Self::Counter(count.saturating_sub(*before)),
            (Self::Histogram(histogram), Self::Histogram(before)) => Self::Histogram(histogram.since(before)),
            (now, _) => now.clone(),
        }
    }
}

/// Adds metrics to those of the same names. New ones only as far as one hook may have them: names may differ
/// from worker to worker.
pub fn add(metrics: &mut Metrics, more: &Metrics) {
    for (name, more) in more {
        if let Some(metric) = metrics.get_mut(name) {
            metric.add(more);
        } else if metrics.len() < MAX_HOOK {
            metrics.insert(name.clone(), more.clone());
        }
    }
}

/// What is new in metrics since they were `before`.
#[must_use]
pub fn since(metrics: &Metrics, before: &Metrics) -> Metrics {
    let new = |(name, metric): (&String, &Metric)| {
        let new = before.get(name).map_or_else(|| metric.clone(), |before| metric.since(before));
        (name.clone(), new)
    };
    metrics.iter().map(new).collect()
}

/// Names that each of so many hooks of a scenario may use.
#[must_use]
pub fn names_of(hooks: usize) -> usize {
    MAX_HOOK.min(MAX_SCENARIO / hooks.max(1))
}

/// Whether it is a name: `[a-z][a-z0-9_]*`, of up to 64 characters.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= MAX_NAME && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(is_rest)
}

/// What no host tells of a hook.
///
/// # Errors
/// With the first thing that is wrong.
pub fn check(metrics: &Metrics) -> Result<(), String> {
    if metrics.len() > MAX_HOOK {
        return Err(format!("{} metrics of one hook, of which there may be {MAX_HOOK}", metrics.len()));
    }
    for (name, metric) in metrics {
        if !is_name(name) {
            return Err("a metric whose name is none".to_owned());
        }
        let is_whole = |h: &Histogram| h.buckets.len() == BOUNDS.len() + 1;
        if matches!(metric, Metric::Histogram(histogram) if !is_whole(histogram)) {
            return Err(format!("a histogram that has not {} buckets", BOUNDS.len() + 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.observe(*value));
        histogram
    }

    #[test]
    fn a_name_is_what_prometheus_takes_as_well() {
        for (name, expected) in [
            ("a", true),
            ("dwell_seconds2", true),
            (&"a".repeat(64), true),
            (&"a".repeat(65), false),
            ("", false),
            ("_a", false),
            ("2a", false),
            ("Dwell", false),
            ("a-b", false),
            ("a b", false),
            ("é", false),
            ("aé", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (value, bucket) in [
            (f64::MIN, 0),
            (-1.0, 0),
            (0.0, 0),
            (0.001, 0),
            (0.001_000_1, 1),
            (1.0, 9),
            (1.5, 10),
            (1e6, 27),
            (1_000_000.1, 28),
            (f64::MAX, 28),
        ] {
            let buckets = histogram(&[value]).buckets;
            assert_eq!(buckets.iter().position(|count| *count == 1), Some(bucket), "{value}");
            assert_eq!(buckets.len(), 29);
        }
    }

    #[test]
    fn numbers_stay_such_that_json_has_them() {
        let mut all = histogram(&[f64::MAX, f64::MAX]);
        all.add(&histogram(&[f64::MAX]));
        assert_eq!((all.sum, all.count()), (f64::MAX, 3));
        let metrics = Metrics::from([("h".to_owned(), Metric::Histogram(all)), ("g".to_owned(), Metric::Gauge(-0.5))]);
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
        assert_eq!(serde_json::to_string(&Metric::Counter(3)).unwrap(), r#"{"counter":3}"#);
    }

    #[test]
    fn what_no_host_says_is_found() {
        let named = |name: &str, metric| Metrics::from([(name.to_owned(), metric)]);
        assert_eq!(check(&named("a", Metric::Histogram(histogram(&[1.0])))), Ok(()));
        assert!(check(&named("A", Metric::Gauge(1.0))).is_err());
        assert!(check(&named("a", Metric::Histogram(Histogram::default()))).is_err());
        let many = |n: usize| (0..n).map(|n| (format!("m{n}"), Metric::Counter(1))).collect();
        assert_eq!(check(&many(64)), Ok(()));
        assert!(check(&many(65)).is_err());
    }

    #[test]
    fn names_do_not_add_up_without_end() {
        let named = |from: usize| (from..from + 40).map(|n| (format!("m{n}"), Metric::Counter(1))).collect();
        let mut all: Metrics = named(0);
        add(&mut all, &named(30));
        add(&mut all, &named(70));
        assert_eq!((all.len(), &all["m30"]), (MAX_HOOK, &Metric::Counter(2)));
    }

    #[test]
    fn hooks_share_the_names_of_a_scenario() {
        assert_eq!([0, 1, 4, 5, 32].map(names_of), [64, 64, 64, 51, 8]);
    }

    proptest! {
        /// However often it is told, each value counts once.
        #[test]
        fn what_is_new_adds_up_to_all(values in prop::collection::vec(-10i32..10_000, 0..40), cut in 0usize..40) {
            let values: Vec<_> = values.into_iter().map(f64::from).collect();
            let told = |values: &[f64]| Metrics::from([
                ("n".to_owned(), Metric::Counter(values.len() as u64)),
                ("h".to_owned(), Metric::Histogram(histogram(values))),
                ("g".to_owned(), Metric::Gauge(values.last().copied().unwrap_or(0.5))),
            ]);
            let (before, now) = (told(&values[..cut.min(values.len())]), told(&values));
            let mut sum = before.clone();
            add(&mut sum, &since(&now, &before));
            if let Some(Metric::Histogram(h)) = sum.get_mut("h") && values.is_empty() {
                h.buckets.clear();
            }
            prop_assert_eq!(sum, now);
        }
    }
}
