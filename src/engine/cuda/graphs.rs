//! Recorded passes, one a bucket, bounded in number.

use std::collections::{HashMap, VecDeque};

use intentd_kernels::{Capacity, Graph};

/// Which buckets have a graph, which should get one, and which cannot.
#[derive(Debug)]
pub(super) struct Graphs {
    max: usize,
    ready: HashMap<Capacity, Recorded>,
    /// Buckets that were seen without a graph, oldest first.
    wanted: VecDeque<Capacity>,
    /// Buckets whose recording failed: they run launch by launch for good.
    given_up: Vec<Capacity>,
    /// Counts uses, so that the least recently used graph can be told.
    clock: u64,
}

#[derive(Debug)]
struct Recorded {
    graph: Graph,
    used: u64,
}

impl Graphs {
    /// Room for `max` graphs; none with 0.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ready: HashMap::new(),
            wanted: VecDeque::new(),
            given_up: Vec::new(),
            clock: 0,
        }
    }

    /// The graph of a bucket. Where there is none, the bucket is noted as wanted.
    pub(super) fn get(&mut self, bucket: Capacity) -> Option<&Graph> {
        self.clock += 1;
        if let Some(recorded) = self.ready.get_mut(&bucket) {
            recorded.used = self.clock;
            return Some(&recorded.graph);
        }
        let known = self.wanted.contains(&bucket) || self.given_up.contains(&bucket);
        if self.max > 0 && !known {
            self.wanted.push_back(bucket);
        }
        None
    }

    /// The bucket that has waited longest for a graph.
    pub(super) fn next_wanted(&self) -> Option<Capacity> {
        self.wanted.front().copied()
    }

    /// Whether a graph has to go before another can come.
    pub(super) fn is_full(&self) -> bool {
        self.ready.len() >= self.max
    }

    /// Drops the least recently used graph. The device must not be running it.
    pub(super) fn evict(&mut self) {
        let oldest = self.ready.iter().min_by_key(|(_, recorded)| recorded.used);
        if let Some(bucket) = oldest.map(|(bucket, _)| *bucket) {
            self.ready.remove(&bucket);
        }
    }

    /// Takes the graph of a bucket that was wanted.
    pub(super) fn add(&mut self, bucket: Capacity, graph: Graph) {
        self.wanted.retain(|wanted| *wanted != bucket);
        self.clock += 1;
        let used = self.clock;
        self.ready.insert(bucket, Recorded { graph, used });
    }

    /// Notes that a bucket that was wanted cannot be recorded.
    pub(super) fn give_up(&mut self, bucket: Capacity) {
        self.wanted.retain(|wanted| *wanted != bucket);
        self.given_up.push(bucket);
    }

    /// Number of graphs.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }
}
