//! Atomic cells for values that the standard library has none for: an `f64`, and an instant that may be unset.
//!
//! All operations are relaxed: a cell publishes its own value and orders nothing else. A read-modify-write
//! by `load` and `store` may lose an update of another thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// An `f64`, kept as its bits.
#[derive(Debug, Default)]
pub struct AtomicF64(AtomicU64);

impl AtomicF64 {
    /// A cell with `value`.
    pub const fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    /// The value.
    pub fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Replaces the value.
    pub fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// An instant, or none, with a resolution of one microsecond.
///
/// Instants before the cell was made count as the moment when it was made.
#[derive(Debug)]
pub struct AtomicInstant {
    origin: Instant,
    /// Microseconds from `origin`, plus one; 0 for none.
    micros: AtomicU64,
}

impl AtomicInstant {
    /// A cell that is unset.
    pub fn unset() -> Self {
        Self {
            origin: Instant::now(),
            micros: AtomicU64::new(0),
        }
    }

    /// A cell that is set to now.
    pub fn now() -> Self {
        Self {
            origin: Instant::now(),
            micros: AtomicU64::new(1),
        }
    }

    /// The instant, if the cell is set.
    pub fn load(&self) -> Option<Instant> {
        let micros = self.micros.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.origin + Duration::from_micros(micros))
    }

    /// Whether the cell is set.
    pub fn is_set(&self) -> bool {
        self.micros.load(Ordering::Relaxed) > 0
    }

    /// Sets the cell to `at`.
    pub fn store(&self, at: Instant) {
        self.micros.store(self.micros(at), Ordering::Relaxed);
    }

    /// Sets the cell unless it is set already.
    pub fn store_first(&self, at: Instant) {
        let order = Ordering::Relaxed;
        // An error is an earlier instant, which stays.
        let _ = self
            .micros
            .compare_exchange(0, self.micros(at), order, order);
    }

    /// Unsets the cell.
    pub fn clear(&self) {
        self.micros.store(0, Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.origin).as_micros();
        u64::try_from(micros).map_or(u64::MAX, |micros| micros.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_comes_back_bit_by_bit() {
        let cell = AtomicF64::default();
        assert_eq!(cell.load().to_bits(), 0.0_f64.to_bits());
        for value in [1.5, -0.0, f64::MIN_POSITIVE, f64::INFINITY, f64::NAN] {
            cell.store(value);
            assert_eq!(cell.load().to_bits(), value.to_bits());
        }
        assert_eq!(AtomicF64::new(0.25).load(), 0.25);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instant_comes_back_and_can_be_cleared() {
        let cell = AtomicInstant::unset();
        assert_eq!((cell.load(), cell.is_set()), (None, false));
        let start = Instant::now();
        // The moment of creation is an instant like any other.
        for micros in [0, 1, 1_000_000, u64::from(u32::MAX)] {
            let at = start + Duration::from_micros(micros);
            cell.store(at);
            assert_eq!((cell.load(), cell.is_set()), (Some(at), true));
        }
        cell.clear();
        assert_eq!((cell.load(), cell.is_set()), (None, false));
        assert_eq!(AtomicInstant::now().load(), Some(start));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instant_before_the_cell_counts_as_its_creation() {
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let cell = AtomicInstant::unset();
        cell.store(before);
        assert_eq!(cell.load(), Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_instant_stays() {
        let cell = AtomicInstant::unset();
        let first = Instant::now() + Duration::from_secs(1);
        cell.store_first(first);
        cell.store_first(first + Duration::from_secs(1));
        assert_eq!(cell.load(), Some(first));
    }
}
