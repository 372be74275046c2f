//! The end of consumers.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rdkafka::consumer::BaseConsumer;

/// Consumers that are ending. rdkafka waits 0.1 s in the drop of each one that has a group; here that
/// is on a thread of its own, and only the end of all waits for those that are not done.
#[derive(Default)]
pub(crate) struct Leaving(Mutex<Vec<JoinHandle<()>>>);

impl Leaving {
    pub(crate) fn see_off(&self, consumer: BaseConsumer) {
        let thread = std::thread::Builder::new().name("leaving".to_owned());
        // Without a thread it has ended here.
        if let Ok(thread) = thread.spawn(move || drop(consumer)) {
            let mut leaving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.retain(|thread| !thread.is_finished());
            leaving.push(thread);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let leaving = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in leaving.drain(..) {
            // A panic in it has been printed, and here is nobody to tell.
            let _ = thread.join();
        }
    }
}
