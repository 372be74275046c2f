//! Recorded batches, one a bucket and slot of pinned memory, bounded in number.

use std::collections::{HashMap, VecDeque};

use intentd_kernels::{Capacity, Graph};

/// Which buckets have a graph, which should get one, and which cannot.
#[derive(Debug)]
pub(super) struct Graphs {
    max: usize,
    /// Graphs of a bucket: one a slot of pinned memory.
    slots: usize,
    ready: HashMap<Capacity, Recorded>,
    /// What the bucket that has waited longest has so far.
    begun: Vec<Graph>,
    /// Buckets that were seen without a graph, oldest first.
    wanted: VecDeque<Capacity>,
    /// Buckets whose recording failed: they run launch by launch for good.
    given_up: Vec<Capacity>,
    /// Counts uses, so that the least recently used graph can be told.
    clock: u64,
}

#[derive(Debug)]
struct Recorded {
    graphs: Vec<Graph>,
    used: u64,
}

impl Graphs {
    /// Room for `max` buckets; none with 0.
    pub(super) fn new(max: usize, slots: usize) -> Self {
        Self {
            max,
            slots,
            ready: HashMap::new(),
            begun: Vec::new(),
            wanted: VecDeque::new(),
            given_up: Vec::new(),
            clock: 0,
        }
    }

    /// The graphs of a bucket, one a slot. Where there are none, the bucket is noted as wanted.
    pub(super) fn get(&mut self, bucket: Capacity) -> Option<&[Graph]> {
        self.clock += 1;
        if let Some(recorded) = self.ready.get_mut(&bucket) {
            recorded.used = self.clock;
            return Some(&recorded.graphs);
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

    /// Number of slots that the bucket which is being recorded has a graph for: the next to record.
    pub(super) fn recorded(&self) -> usize {
        self.begun.len()
    }

    /// Whether a bucket has to go before another can come.
    pub(super) fn is_full(&self) -> bool {
        self.ready.len() >= self.max
    }

    /// Drops the least recently used bucket. The device must not be running it.
    pub(super) fn evict(&mut self) {
        let oldest = self.ready.iter().min_by_key(|(_, recorded)| recorded.used);
        if let Some(bucket) = oldest.map(|(bucket, _)| *bucket) {
            self.ready.remove(&bucket);
        }
    }

    /// Takes the graph of the next slot for the bucket that has waited longest; it is ready with the
    /// last of them.
    pub(super) fn add(&mut self, bucket: Capacity, graph: Graph) {
        self.begun.push(graph);
        if self.begun.len() < self.slots {
            return;
        }
        let graphs = std::mem::take(&mut self.begun);
        self.wanted.retain(|wanted| *wanted != bucket);
        self.clock += 1;
        let used = self.clock;
        self.ready.insert(bucket, Recorded { graphs, used });
    }

    /// Notes that a bucket that was wanted cannot be recorded.
    pub(super) fn give_up(&mut self, bucket: Capacity) {
        self.begun.clear();
        self.wanted.retain(|wanted| *wanted != bucket);
        self.given_up.push(bucket);
    }

    /// Number of buckets that are ready.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }
}
