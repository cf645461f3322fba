//! Visits every state a model can reach, nearest first, and so finds the shortest way to a broken promise.
//!
//! Three things are looked at:
//! - every state keeps what [`Model::broken`] asks for;
//! - every state in which nothing goes on by itself keeps what [`Model::broken_at_rest`] asks for;
//! - steps that happen by themselves ("progress") never go round in a circle. As the states are finite, every run in
//!   which faults come to an end therefore comes to rest, and does so in one of the states just looked at. This is what
//!   "nothing stuck" means here; it is stronger than "a good end can still be reached".

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Something with states.
pub(crate) trait Model {
    type State: Clone + Eq + Hash;
    type Step: Copy + Display;

    fn initial(&self) -> Self::State;

    /// Adds every step that may be next, and where it leads.
    fn steps(&mut self, from: &Self::State, into: &mut Vec<(Self::Step, Self::State)>);

    /// Whether a step happens by itself sooner or later, unlike faults and the wishes of customers.
    fn is_progress(step: &Self::Step) -> bool;

    /// One state for all that differ in names only.
    fn representative(&self, state: &Self::State) -> Self::State;

    /// The promise that a state breaks.
    fn broken(&mut self, state: &Self::State) -> Option<String>;

    /// The promise that a state breaks in which no progress is left.
    fn broken_at_rest(&mut self, state: &Self::State) -> Option<String>;
}

/// What was looked at when nothing was found.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    /// States without progress left.
    pub(crate) at_rest: usize,
    /// Steps to the state that is farthest away.
    pub(crate) depth: usize,
}

/// A promise that does not hold, and the fewest steps that show it.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) promise: String,
    pub(crate) trace: Vec<String>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "broken: {}", self.promise)?;
        self.trace.iter().enumerate().try_for_each(|(n, step)| write!(f, "\n  {:>2}. {step}", n + 1))
    }
}

/// A state as it was found.
struct Found<M: Model> {
    state: M::State,
    parent: u32,
    depth: u32,
}

/// Explores everything. More than `most` states are a model that got out of hand.
pub(crate) fn explore<M: Model>(model: &mut M, most: usize) -> Result<Explored, Violation> {
    let first = model.representative(&model.initial());
    let mut found = vec![Found::<M> { state: first.clone(), parent: 0, depth: 0 }];
    let mut numbers: HashMap<M::State, u32, Quick> = HashMap::default();
    numbers.insert(first, 0);
    let mut progress: Vec<(u32, u32)> = Vec::new();
    let mut next = Vec::new();
    let (mut steps, mut at_rest, mut at) = (0, 0, 0_u32);
    while let Some(here) = found.get(at as usize) {
        let (state, depth) = (here.state.clone(), here.depth);
        if let Some(promise) = model.broken(&state) {
            return Err(Violation { promise, trace: trace(model, &found, at) });
        }
        model.steps(&state, &mut next);
        steps += next.len();
        let mut resting = true;
        for (step, after) in next.drain(..) {
            let after = model.representative(&after);
            if after == state {
                continue;
            }
            let number = match numbers.entry(after) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let number = found.len() as u32;
                    found.push(Found { state: new.key().clone(), parent: at, depth: depth + 1 });
                    *new.insert(number)
                }
            };
            if M::is_progress(&step) {
                resting = false;
                progress.push((at, number));
            }
        }
        if resting {
            at_rest += 1;
            if let Some(promise) = model.broken_at_rest(&state) {
                return Err(Violation { promise: format!("at rest: {promise}"), trace: trace(model, &found, at) });
            }
        }
        assert!(found.len() <= most, "more than {most} states; bound the model more tightly");
        at += 1;
    }
    if let Some(circling) = first_circling(found.len(), &progress) {
        let promise = "everything comes to rest once faults end".to_owned();
        return Err(Violation { promise, trace: trace(model, &found, circling) });
    }
    let depth = found.last().map_or(0, |last| last.depth as usize);
    Ok(Explored { states: found.len(), steps, at_rest, depth })
}

/// Takes away states whose progress has all been taken away, beginning with those at rest. What remains leads into a
/// circle (Kahn's algorithm, backwards).
fn first_circling(states: usize, progress: &[(u32, u32)]) -> Option<u32> {
    let mut ways_out = vec![0_u32; states];
    let mut starts = vec![0_usize; states + 1];
    for (from, to) in progress {
        ways_out[*from as usize] += 1;
        starts[*to as usize + 1] += 1;
    }
    for n in 0..states {
        starts[n + 1] += starts[n];
    }
    let mut ways_in = vec![0_u32; progress.len()];
    let mut free = starts.clone();
    for (from, to) in progress {
        ways_in[free[*to as usize]] = *from;
        free[*to as usize] += 1;
    }
    let mut ending: Vec<usize> = (0..states).filter(|n| ways_out[*n] == 0).collect();
    while let Some(n) = ending.pop() {
        for from in &ways_in[starts[n]..starts[n + 1]] {
            ways_out[*from as usize] -= 1;
            if ways_out[*from as usize] == 0 {
                ending.push(*from as usize);
            }
        }
    }
    ways_out.iter().position(|ways| *ways > 0).map(|n| n as u32)
}

/// The way to a state, walked again from the start so that names do not change on the way.
fn trace<M: Model>(model: &mut M, found: &[Found<M>], to: u32) -> Vec<String> {
    let mut way = vec![to];
    while let Some(last) = way.last().filter(|n| **n != 0) {
        way.push(found[*last as usize].parent);
    }
    let mut state = model.initial();
    let (mut trace, mut next) = (Vec::new(), Vec::new());
    for number in way.iter().rev().skip(1) {
        next.clear();
        model.steps(&state, &mut next);
        let goal = &found[*number as usize].state;
        if let Some((step, after)) = next.iter().find(|(_, after)| model.representative(after) == *goal) {
            trace.push(step.to_string());
            state = after.clone();
        }
    }
    trace
}

/// A hash that is quick even without optimisation, which is all it has to be here.
pub(crate) type Quick = BuildHasherDefault<Folding>;

#[derive(Default)]
pub(crate) struct Folding(u64);

impl Folding {
    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.fold(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.fold(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.fold(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.fold(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.fold(n as u64);
    }

    fn finish(&self) -> u64 {
        // The table looks at the highest and at the lowest bits, and the latter know little of the last word.
        self.0 ^ (self.0 >> 32)
    }
}
