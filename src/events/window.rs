//! How many records are worked on at once, over all partitions.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The count, and who waits for it to fall.
///
/// Two marks: pausing a partition throws away what was fetched ahead, so that after the upper one is reached
/// nothing is read until the lower one, half of it, is.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    fell: Condvar,
}

#[derive(Debug)]
struct State {
    count: usize,
    high: usize,
}

impl State {
    fn is_low(&self) -> bool {
        self.count <= self.high / 2
    }
}

impl Window {
    /// A window of one record, until it is told more.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { count: 0, high: 1 }),
            fell: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) {
        self.state().count += 1;
    }

    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.count = state.count.saturating_sub(1);
        if state.is_low() {
            self.fell.notify_all();
        }
    }

    /// Records that are worked on.
    pub(super) fn len(&self) -> usize {
        self.state().count
    }

    /// Sets the upper mark; whether no more should be read.
    pub(super) fn is_full(&self, high: usize) -> bool {
        let mut state = self.state();
        state.high = high.max(1);
        state.count >= state.high
    }

    /// Waits until the count has fallen to the lower mark, no longer than `most`; whether it has.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let state = self.state();
        let waited = self
            .fell
            .wait_timeout_while(state, most, |state| !state.is_low());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_low()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn reading_goes_on_at_the_lower_mark() {
        let window = Arc::new(Window::new());
        for _ in 0..4 {
            assert!(!window.is_full(4));
            window.enter();
        }
        assert!(window.is_full(4) && !window.wait(Duration::ZERO));
        window.leave();
        assert!(!window.wait(Duration::ZERO), "three are above the mark");
        let other = Arc::clone(&window);
        let leaving = std::thread::spawn(move || other.leave());
        assert!(window.wait(Duration::from_secs(60)));
        leaving.join().unwrap();
    }
}
