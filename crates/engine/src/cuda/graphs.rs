//! Recorded graphs, one for each bucket and slot of pinned memory, bounded in number.

use std::collections::{HashMap, VecDeque};

use intentd_kernels::{Capacity, Graph};

/// The graphs of buckets, the buckets that wait for one, and those that cannot be recorded.
#[derive(Debug)]
pub(super) struct Graphs {
    max: usize,
    /// Graphs per bucket: one for each slot of pinned memory.
    slots: usize,
    ready: HashMap<Capacity, RecordedBucket>,
    /// The graphs recorded so far for the bucket that has waited longest.
    begun: Vec<Graph>,
    /// Buckets that were used without a graph, oldest first.
    wanted: VecDeque<Capacity>,
    /// Buckets whose recording failed. They always run launch by launch.
    given_up: Vec<Capacity>,
    /// Counts uses, to find the least recently used bucket.
    clock: u64,
}

#[derive(Debug)]
struct RecordedBucket {
    graphs: Vec<Graph>,
    used: u64,
}

impl Graphs {
    /// Graphs of at most `max` buckets. With 0, no bucket is recorded.
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

    /// The graphs of a bucket, one per slot. If there are none, the bucket is marked as wanted.
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

    /// Number of slots already recorded for the current bucket, which is the index of the next slot.
    pub(super) fn recorded(&self) -> usize {
        self.begun.len()
    }

    /// Whether a bucket must be evicted before another can be added.
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

    /// Adds the graph of the next slot for the bucket that has waited longest. The bucket is ready after the
    /// last slot.
    pub(super) fn add(&mut self, bucket: Capacity, graph: Graph) {
        self.begun.push(graph);
        if self.begun.len() < self.slots {
            return;
        }
        let graphs = std::mem::take(&mut self.begun);
        self.wanted.retain(|wanted| *wanted != bucket);
        self.clock += 1;
        let used = self.clock;
        self.ready.insert(bucket, RecordedBucket { graphs, used });
    }

    /// Marks a wanted bucket as impossible to record.
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
