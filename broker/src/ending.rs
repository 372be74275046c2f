//! Ends consumers in the background.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rdkafka::consumer::BaseConsumer;

/// Consumers that are ending. rdkafka's drop of a consumer with a group waits 0.1 s. Here a thread waits instead,
/// and only the drop of this value waits for unfinished threads.
#[derive(Default)]
pub(crate) struct EndingConsumers(Mutex<Vec<JoinHandle<()>>>);

impl EndingConsumers {
    pub(crate) fn end(&self, consumer: BaseConsumer) {
        let thread = std::thread::Builder::new().name("ending".to_owned());
        // If no thread could be started, the consumer has been dropped here.
        if let Ok(thread) = thread.spawn(move || drop(consumer)) {
            let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            threads.retain(|thread| !thread.is_finished());
            threads.push(thread);
        }
    }
}

impl Drop for EndingConsumers {
    fn drop(&mut self) {
        let threads = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of the thread has been printed; there is no caller to report it to.
            let _ = thread.join();
        }
    }
}
