//! What large requests cost beside the engine, by their size.
//!
//! Reading, decoding and cutting half a megabyte takes longer than everything else that a request asks for,
//! so a mean over requests of all sizes says nothing of the next minute. The cost of a byte does; and unlike
//! what a request costs it can be learnt while requests are refused, since those whose body was read cost
//! what all others do.

use super::learned::RequestCost;

/// Bytes of an interval below which their cost is not to be told from everything else.
const BYTES_MIN: f64 = 256.0 * 1024.0;

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// Large bodies that were read in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LargeBodies {
    /// Their bytes.
    pub read: f64,
    /// Bytes a second of those that were offered, by requests a second that were: the mean over all requests.
    pub mean: f64,
}

/// The cost of a byte.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByteCost(Option<f64>);

impl ByteCost {
    /// So many bytes were read, and the host took `cpu` seconds for them and for `answered` requests in
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
        let found = (cpu - others).max(0.0) / bytes;
        let before = self.0.unwrap_or(found);
        self.0 = Some(before + NEWEST * (found - before));
    }

    /// CPU seconds that so many bytes take.
    pub(super) fn of(self, bytes: f64) -> f64 {
        self.0.unwrap_or(0.0) * bytes
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
        let mut cost = ByteCost::default();
        cost.learn(1000.0, 1.0, (1.0, 1.0), known);
        assert_eq!(cost.of(1e6), 0.0, "so few say nothing");
        for _ in 0..50 {
            let cpu = 100.0 * 1e-4 + 50.0 * 1e-5 + 50e6 * 4e-9;
            cost.learn(50e6, cpu, (100.0, 50.0), known);
        }
        assert!((cost.of(1e6) - 4e-3).abs() < 1e-6);
        cost.learn(1e9, 0.0, (100.0, 50.0), known);
        assert!(cost.of(1e6) >= 0.0);
    }
}
