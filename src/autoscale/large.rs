//! What large requests cost beside the engine, by their size.
//!
//! Reading, decoding and cutting half a megabyte takes longer than everything else that a request asks for,
//! so a mean over requests of all sizes says nothing of the next minute. The cost of a byte does; and unlike
//! what a request costs it is learnt while requests are refused as well. What was read of those is taken to be
//! a cost of those that were answered: a server that reads in vain can do less.

use super::learned::RequestCost;

/// Seconds a byte, before any was seen.
const BYTE: f64 = 3e-9;

/// Bytes of an interval below which their cost is not to be told from everything else.
const BYTES_MIN: f64 = 1e6;

/// What of earlier intervals is left after another. They count by their bytes: in one of few bytes, what is
/// not theirs is much.
const KEPT: f64 = 0.8;

/// Intervals after which it is known.
const KNOWN: u32 = 5;

/// The cost of a byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteCost {
    cpu: f64,
    bytes: f64,
    seen: u32,
}

impl ByteCost {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self {
            cpu: 0.0,
            bytes: 0.0,
            seen: 0,
        }
    }

    /// So many bytes were answered, and the host took `cpu` seconds for them and for `answered` requests in
    /// `batches`, each of which costs `known` beside its size.
    pub(super) fn learn(
        &mut self,
        bytes: f64,
        cpu: f64,
        (answered, batches): (f64, f64),
        known: RequestCost,
    ) {
        if bytes < BYTES_MIN {
            return;
        }
        let others = answered * known.request + batches * known.batch;
        self.seen = self.seen.saturating_add(1);
        self.cpu = KEPT * self.cpu + (cpu - others).max(0.0);
        self.bytes = KEPT * self.bytes + bytes;
    }

    /// CPU seconds a byte.
    pub(super) fn seconds(&self) -> f64 {
        if self.bytes > 0.0 {
            self.cpu / self.bytes
        } else {
            BYTE
        }
    }

    /// Whether it is more than a guess.
    pub(super) fn is_known(&self) -> bool {
        self.seen > KNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cost_what_requests_do_not_explain() {
        let known = RequestCost {
            request: 1e-4,
            batch: 1e-5,
        };
        let mut cost = ByteCost::new();
        cost.learn(1000.0, 1.0, (1.0, 1.0), known);
        assert_eq!(cost.seconds(), BYTE, "so few say nothing");
        cost.learn(2e6, 0.1, (1.0, 1.0), known);
        for _ in 0..50 {
            let cpu = 100.0 * 1e-4 + 50.0 * 1e-5 + 50e6 * 7e-9;
            cost.learn(50e6, cpu, (100.0, 50.0), known);
        }
        assert!(cost.is_known() && (cost.seconds() - 7e-9).abs() < 1e-12);
        cost.learn(1e9, 0.0, (100.0, 50.0), known);
        assert!(cost.seconds() >= 0.0);
    }
}
