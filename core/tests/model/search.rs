//! A breadth-first search over hashed states, so that the first violation found has the shortest way to it.
//!
//! Our own, and not the crate `stateright`: one loop and one map are all that this needs, and it would
//! replace only them. A state is known by 64 bits of its hash; at a million states two share one with a
//! chance of one in tens of millions, and that would only leave a state out.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher as _},
};

use crate::guard::{Broken, Without};

/// A world in which something may happen next.
pub(crate) trait Model: Clone + Hash {
    type Event: Copy;

    fn events(&self, without: Without) -> Vec<Self::Event>;

    fn happen(&mut self, without: Without, event: Self::Event);

    /// What the last event broke.
    fn broken(&mut self) -> &mut Vec<Broken>;
}

/// Where the search ended: the shortest way to the violation, if there is one.
pub(crate) struct Found<E> {
    pub(crate) states: usize,
    pub(crate) violation: Option<(Broken, Vec<E>)>,
}

/// Searches for `wanted`, or for any violation, and shows every state to `visit` on the way.
pub(crate) fn search<M: Model>(
    start: M,
    without: Without,
    wanted: Option<Broken>,
    mut visit: impl FnMut(&M),
) -> Found<M::Event> {
    let mut known: HashMap<u64, Option<(u64, M::Event)>> = HashMap::from([(hash(&start), None)]);
    let mut frontier = VecDeque::from([(hash(&start), start)]);
    while let Some((from, world)) = frontier.pop_front() {
        visit(&world);
        for event in world.events(without) {
            let mut next = world.clone();
            next.happen(without, event);
            let broken = std::mem::take(next.broken());
            let is_wanted = |b: &Broken| wanted.is_none_or(|wanted| *b == wanted);
            if let Some(broken) = broken.into_iter().find(is_wanted) {
                let mut trace = vec![event];
                trace.extend(std::iter::successors(known[&from], |(before, _)| known[before]).map(|(_, event)| event));
                trace.reverse();
                return Found { states: known.len(), violation: Some((broken, trace)) };
            }
            let at = hash(&next);
            if let Entry::Vacant(entry) = known.entry(at) {
                entry.insert(Some((from, event)));
                frontier.push_back((at, next));
            }
        }
    }
    Found { states: known.len(), violation: None }
}

fn hash(world: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
