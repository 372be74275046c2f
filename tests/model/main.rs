//! Slots and queue under a model checker: the server's source files with shuttle's locks and atomics instead
//! of the standard library's, run in thousands of thread interleavings.
//!
//! A lost wake-up, a text answered twice or never, or an exceeded bound fails the test, and shuttle prints the
//! interleaving.

// Modules that the source files import from `crate`.
use intentd::{error, model};

#[path = "../../src/serving/queue"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the server uses all items; these tests use some"
)]
mod queue {
    pub(crate) mod fill;
    pub(crate) mod slots;
    pub(crate) mod waiting;

    pub(crate) mod sync {
        pub(crate) use std::sync::PoisonError;

        pub(crate) use shuttle::sync::atomic::{
            AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        };
        pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
    }
}

use prometheus::{IntCounter, IntGauge};
use queue::fill::BatchLimits;
use queue::slots::{Class, SlotLimits, Slots, Ticket};
use queue::sync::{Arc, AtomicUsize, Ordering};
use queue::waiting::{Dequeued, Queue, QueuedText, Reply, TextOutput, WaitTime};
use shuttle::thread;
use tokio::sync::oneshot;

const INTERLEAVINGS: usize = 5_000;

const LIMITS: BatchLimits = BatchLimits {
    tokens_max: 4,
    texts_max: 2,
};

fn gauges() -> (IntGauge, IntCounter) {
    let depth = IntGauge::new("depth", "d").expect("a good name");
    (
        depth,
        IntCounter::new("abandoned", "a").expect("a good name"),
    )
}

/// Runs random interleavings, and ones with preemptions at unlikely points (PCT).
fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let random = Arc::clone(&test);
    shuttle::check_random(move || random(), INTERLEAVINGS);
    shuttle::check_pct(move || test(), INTERLEAVINGS, 3);
}

fn answered() -> TextOutput {
    TextOutput {
        logits: vec![1.0],
        computed: std::time::Duration::ZERO,
    }
}

fn entry(ticket: &Ticket, reply: oneshot::Sender<Reply>) -> QueuedText {
    let encoded = model::Encoded {
        ids: vec![1],
        type_ids: vec![0],
        truncated: false,
    };
    let now = tokio::time::Instant::now();
    QueuedText::new(ticket, encoded, now, None, reply)
}

/// Clients that stay and clients that leave, against an engine that sleeps while the queue is empty: it is woken,
/// each client that stays gets one answer, and all slots are released.
#[test]
fn no_wake_up_is_lost_and_each_client_is_answered_once() {
    check(|| {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(
            SlotLimits { slots: 3, lists: 2 },
            depth.clone(),
            abandoned.clone(),
        );
        let queue = Arc::new(Queue::new());
        let refused = Arc::new(AtomicUsize::new(0));
        let client = |texts: usize, stays: bool| {
            let (slots, queue) = (Arc::clone(&slots), Arc::clone(&queue));
            let refused = Arc::clone(&refused);
            thread::spawn(move || {
                let Ok(tickets) = slots.reserve(Class::of(texts), &vec![2; texts]) else {
                    refused.fetch_add(texts, Ordering::SeqCst);
                    return if stays { texts } else { 0 };
                };
                let (senders, replies): (Vec<_>, Vec<_>) =
                    tickets.iter().map(|_| oneshot::channel()).unzip();
                let entries = tickets.iter().zip(senders);
                let entries = entries
                    .map(|(ticket, sender)| entry(ticket, sender))
                    .collect();
                assert!(queue.push(entries).is_ok());
                if !stays {
                    return 0;
                }
                // Only an arrival wakes the engine.
                let answered = |reply| matches!(shuttle::future::block_on(reply), Ok(Ok(_)));
                replies
                    .into_iter()
                    .map(answered)
                    .filter(|answered| *answered)
                    .count()
            })
        };
        let clients = [client(1, true), client(2, true), client(1, false)];
        let engine = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut taken = 0;
                while let Dequeued::Batch(batch) = queue.take(LIMITS, WaitTime::Unlimited) {
                    assert!(batch.len() <= LIMITS.texts_max);
                    taken += batch.len();
                    for entry in batch {
                        let _ = entry.reply.send(Ok(answered()));
                    }
                }
                taken
            })
        };
        let answered: usize = clients
            .map(|client| client.join().expect("no panic"))
            .iter()
            .sum();
        assert_eq!(answered, 3, "a client that stayed got no answer");
        queue.close();
        let taken = engine.join().expect("no panic");
        let offered = 4;
        let left = abandoned.get() as usize;
        assert_eq!(taken + left + refused.load(Ordering::SeqCst), offered);
        assert_eq!(depth.get(), 0);
        assert_eq!(
            (slots.tokens(Class::Single), slots.tokens(Class::List)),
            (0, 0)
        );
    });
}

/// However many clients arrive at once, no more slots are taken than exist.
#[test]
fn bounds_hold_in_any_order() {
    check(|| {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(SlotLimits { slots: 3, lists: 2 }, depth.clone(), abandoned);
        let client = |texts: usize| {
            let (slots, depth) = (Arc::clone(&slots), depth.clone());
            thread::spawn(move || {
                let tickets = slots.reserve(Class::of(texts), &vec![1; texts]);
                assert!(depth.get() <= 3, "{}", depth.get());
                thread::yield_now();
                tickets.map_or(0, |tickets| tickets.len())
            })
        };
        let clients = [client(2), client(2), client(1), client(1)];
        for client in clients {
            client.join().expect("no panic");
        }
        assert_eq!(depth.get(), 0);
        // Refused clients have lost no slot.
        assert!(slots.reserve(Class::List, &[1, 1]).is_ok());
    });
}

/// Records that wait for slots get them, in any order of arrivals and releases.
#[test]
fn a_record_that_waits_for_slots_gets_them() {
    check(|| {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(SlotLimits { slots: 3, lists: 2 }, depth.clone(), abandoned);
        let record = |texts: usize| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                let tokens = vec![1; texts];
                let wait = slots.wait(Class::of(texts), &tokens, || false);
                let tickets = shuttle::future::block_on(wait);
                assert_eq!(tickets.len(), texts);
            })
        };
        // A client that is refused must not cost a record its wake-up.
        let client = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || drop(slots.reserve(Class::List, &[1, 1])))
        };
        let records = [record(2), record(2), record(1)];
        for thread in [client].into_iter().chain(records) {
            thread.join().expect("no panic");
        }
        assert_eq!(depth.get(), 0);
    });
}

/// A queue that closes while a request arrives either returns the request or answers it.
#[test]
fn a_closing_queue_loses_nothing() {
    check(|| {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(SlotLimits { slots: 3, lists: 2 }, depth, abandoned);
        let queue = Arc::new(Queue::new());
        let engine = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                while let Dequeued::Batch(batch) = queue.take(LIMITS, WaitTime::Unlimited) {
                    for entry in batch {
                        let _ = entry.reply.send(Ok(answered()));
                    }
                }
            })
        };
        let closer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.close())
        };
        let tickets = slots.reserve(Class::Single, &[1]).expect("there is room");
        let (sender, mut reply) = oneshot::channel();
        let pushed = queue.push(vec![entry(&tickets[0], sender)]);
        closer.join().expect("no panic");
        engine.join().expect("no panic");
        match pushed {
            Ok(()) => assert!(matches!(reply.try_recv(), Ok(Ok(_)))),
            Err(entries) => assert_eq!(entries.len(), 1),
        }
    });
}
