//! Which order may do what in a runner: generation fencing as a pure table, independent of the order in which
//! messages arrive. It stands here, and not with the runner, so that the model check runs the same code.
//!
//! Invariant: generations that a runner starts strictly increase for each scenario, and none is started after
//! it, or a newer one, was told to stop.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::ids::{Generation, ScenarioId};

/// The highest generation heard of for each scenario. Never forgotten: an order may be late by any time, and
/// an entry is 24 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fences {
    highest: BTreeMap<ScenarioId, Generation>,
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is of an older generation.
    Outdated,
    /// Heard before: the heartbeat answers it.
    Repeated,
    /// A newer generation: end the older one, start this one.
    Start,
    /// The newest generation shall stop.
    Stop,
    /// A generation never heard of shall stop: end the older one, and report this one as stopped.
    StopUnknown,
}

impl Fences {
    /// What becomes of an order to run `generation`.
    pub fn deploy(&mut self, scenario: ScenarioId, generation: Generation) -> Verdict {
        match self.hear(scenario, generation) {
            Ordering::Less => Verdict::Outdated,
            Ordering::Equal => Verdict::Repeated,
            Ordering::Greater => Verdict::Start,
        }
    }

    /// What becomes of an order to stop `generation` and whatever is older.
    pub fn stop(&mut self, scenario: ScenarioId, generation: Generation) -> Verdict {
        match self.hear(scenario, generation) {
            Ordering::Less => Verdict::Outdated,
            Ordering::Equal => Verdict::Stop,
            Ordering::Greater => Verdict::StopUnknown,
        }
    }

    /// Compares `generation` with the highest one before, and remembers it if it is higher.
    fn hear(&mut self, scenario: ScenarioId, generation: Generation) -> Ordering {
        let highest = self.highest.entry(scenario).or_insert(Generation::MIN);
        let order = generation.cmp(highest);
        *highest = generation.max(*highest);
        order
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Order {
        Deploy(Generation),
        Stop(Generation),
    }
    use Order::{Deploy, Stop};

    fn verdicts(orders: &[Order]) -> Vec<Verdict> {
        let (mut fences, scenario) = (Fences::default(), ScenarioId::generate());
        let mut apply = |order| match order {
            Deploy(g) => fences.deploy(scenario, g),
            Stop(g) => fences.stop(scenario, g),
        };
        orders.iter().map(|&order| apply(order)).collect()
    }

    #[test]
    fn orders_count_in_whatever_order_they_come() {
        use Verdict as V;
        let check = |orders: &[Order], expected: &[Verdict]| assert_eq!(verdicts(orders), expected, "{orders:?}");
        check(&[Deploy(1), Deploy(1), Deploy(2), Deploy(1)], &[V::Start, V::Repeated, V::Start, V::Outdated]);
        check(&[Deploy(3), Stop(3), Stop(3), Deploy(3)], &[V::Start, V::Stop, V::Stop, V::Repeated]);
        check(&[Stop(2), Deploy(2), Deploy(1), Deploy(3)], &[V::StopUnknown, V::Repeated, V::Outdated, V::Start]);
        check(&[Deploy(2), Stop(1), Stop(4), Stop(3)], &[V::Start, V::Outdated, V::StopUnknown, V::Outdated]);
    }

    proptest! {
        #[test]
        fn starts_increase_and_never_follow_a_stop(
            orders in prop::collection::vec((any::<bool>(), 1i64..6), 0..40)
        ) {
            let orders: Vec<_> = orders.into_iter().map(|(d, g)| if d { Deploy(g) } else { Stop(g) }).collect();
            let (mut started, mut stopped) = (0, 0);
            for (order, verdict) in orders.iter().zip(verdicts(&orders)) {
                match (*order, verdict) {
                    (Deploy(g), Verdict::Start) => {
                        prop_assert!(g > started && g > stopped);
                        started = g;
                    }
                    (Stop(g), _) => stopped = stopped.max(g),
                    (Deploy(_), other) => prop_assert!(matches!(other, Verdict::Outdated | Verdict::Repeated)),
                }
            }
        }
    }
}
