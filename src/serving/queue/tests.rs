//! Slots and queue against a reference model, and under contention.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fill::BatchLimits;
use super::slots::{Class, QueueFull, SlotLimits, Slots, Ticket};
use super::waiting::{Dequeued, Queue, QueuedText, Reply, TextOutput, WaitTime};
use crate::error::Refusal;
use crate::model::Encoded;

struct Fixture {
    slots: Arc<Slots>,
    depth: IntGauge,
    abandoned: IntCounter,
}

fn slots(slots: usize, lists: usize) -> Fixture {
    let depth = IntGauge::new("depth", "d").unwrap();
    let abandoned = IntCounter::new("abandoned", "a").unwrap();
    Fixture {
        slots: Slots::new(
            SlotLimits { slots, lists },
            depth.clone(),
            abandoned.clone(),
        ),
        depth,
        abandoned,
    }
}

/// A text of `tokens` tokens whose first id is its number.
fn encoded(number: usize, tokens: usize) -> Encoded {
    let mut ids = vec![0; tokens];
    ids[0] = u32::try_from(number).unwrap();
    Encoded {
        type_ids: vec![0; tokens],
        ids,
        truncated: false,
    }
}

type ReplyReceiver = oneshot::Receiver<Reply>;

fn answered() -> TextOutput {
    TextOutput {
        logits: vec![1.0],
        computed: Duration::ZERO,
    }
}

fn waiting(
    ticket: &Ticket,
    number: usize,
    tokens: usize,
    deadline: Option<Instant>,
) -> (QueuedText, ReplyReceiver) {
    let (reply, receiver) = oneshot::channel();
    let since = Instant::now();
    let entry = QueuedText::new(ticket, encoded(number, tokens), since, deadline, reply);
    (entry, receiver)
}

fn numbers(batch: &[QueuedText]) -> Vec<usize> {
    batch
        .iter()
        .map(|entry| entry.encoded.ids[0] as usize)
        .collect()
}

#[derive(Debug, Clone)]
enum Operation {
    /// A request with texts of these lengths arrives, with a deadline in milliseconds.
    Arrive(Vec<usize>, Option<u64>),
    /// The client of the text at this position (modulo their number) leaves.
    Leave(usize),
    /// The engine takes a batch.
    Take(BatchLimits),
    /// This many milliseconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Operation> {
    let limits = (1..40usize, 1..6usize).prop_map(|(tokens_max, texts_max)| BatchLimits {
        tokens_max,
        texts_max,
    });
    let lengths = prop::collection::vec(1..20usize, 1..5);
    let time = prop::option::of(1..100u64);
    prop_oneof![
        3 => (lengths, time).prop_map(|(lengths, time)| Operation::Arrive(lengths, time)),
        1 => any::<usize>().prop_map(Operation::Leave),
        2 => limits.prop_map(Operation::Take),
        1 => (1..50u64).prop_map(Operation::Pass),
    ]
}

const MAX: usize = 8;
const LISTS_MAX: usize = 5;

/// A text in the reference queue.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ReferenceText {
    number: usize,
    tokens: usize,
    deadline: Option<Instant>,
}

/// What the queue should do, implemented with two lists.
#[derive(Default)]
struct ReferenceQueue {
    classes: [Vec<ReferenceText>; 2],
    clients: Vec<(usize, Ticket)>,
    replies: Vec<(usize, ReplyReceiver)>,
    next: usize,
    left: u64,
}

impl ReferenceQueue {
    fn len(&self) -> usize {
        self.classes.iter().map(Vec::len).sum()
    }

    fn arrive(&mut self, fixture: &Fixture, queue: &Queue, lengths: &[usize], ms: Option<u64>) {
        let class = Class::of(lengths.len());
        // Expected tokens do not affect admission to the queue.
        let expected_tokens = vec![3; lengths.len()];
        let lists = self.classes[Class::List as usize].len();
        match fixture.slots.reserve(class, &expected_tokens) {
            Ok(tickets) => {
                let deadline = ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                let mut entries = Vec::new();
                for (ticket, &tokens) in tickets.into_iter().zip(lengths) {
                    let number = self.next;
                    let (entry, reply) = waiting(&ticket, number, tokens, deadline);
                    entries.push(entry);
                    self.replies.push((number, reply));
                    self.clients.push((number, ticket));
                    let text = ReferenceText {
                        number,
                        tokens,
                        deadline,
                    };
                    self.classes[class as usize].push(text);
                    self.next += 1;
                }
                assert!(queue.push(entries).is_ok());
            }
            Err(QueueFull::Slots { max }) => {
                assert_eq!(max, MAX);
                assert!(self.len() + lengths.len() > MAX);
            }
            Err(QueueFull::Lists { max }) => {
                assert_eq!((max, class), (LISTS_MAX, Class::List));
                assert!(lists + lengths.len() > LISTS_MAX);
            }
        }
    }

    fn leave(&mut self, position: usize) {
        if self.clients.is_empty() {
            return;
        }
        let position = position % self.clients.len();
        let (number, ticket) = self.clients.swap_remove(position);
        let before = self.len();
        for texts in &mut self.classes {
            texts.retain(|text| text.number != number);
        }
        self.left += (before - self.len()) as u64;
        self.replies.retain(|(replied, _)| *replied != number);
        drop(ticket);
    }

    fn take(&mut self, queue: &Queue, limits: BatchLimits) {
        let now = Instant::now();
        let work = queue.take(limits, WaitTime::Zero);
        let late = |text: &ReferenceText| text.deadline.is_some_and(|deadline| deadline <= now);
        let batch = match work {
            Dequeued::Batch(batch) => batch,
            Dequeued::Empty => Vec::new(),
            Dequeued::Closed => panic!("the queue is open"),
        };
        // Expired texts may be queued behind others that did not fit. They are handled in their turn.
        let mut found = numbers(&batch);
        let tokens: usize = batch.iter().map(|entry| entry.encoded.ids.len()).sum();
        assert!(found.len() <= limits.texts_max);
        assert!(tokens <= limits.tokens_max || found.len() == 1);
        for texts in &mut self.classes {
            let mut taken = 0;
            while let Some(text) = texts.get(taken) {
                if late(text) {
                    let reply = self.replies.iter_mut().find(|(n, _)| *n == text.number);
                    let answer = reply.map(|(_, reply)| reply.try_recv());
                    assert_eq!(answer, Some(Ok(Err(Refusal::Deadline))));
                } else if found.contains(&text.number) {
                    found.retain(|number| *number != text.number);
                } else {
                    break;
                }
                taken += 1;
            }
            texts.drain(..taken);
        }
        assert_eq!(found, [0; 0], "taken out of turn, or twice");
        if batch.len() < limits.texts_max {
            // Of the two next texts, the one whose turn it is did not fit.
            let fits = |texts: &Vec<ReferenceText>| {
                let next = texts.first();
                next.is_none_or(|text| tokens + text.tokens <= limits.tokens_max)
            };
            let both_fit = self.classes.iter().all(fits);
            assert!(
                self.len() == 0 || !both_fit,
                "the batch had room for the next text"
            );
        }
        for entry in batch {
            let _ = entry.reply.send(Ok(answered()));
        }
    }
}

proptest! {
    /// Like the reference: first come, first served within a class, limits and bounds kept, and each text
    /// taken, refused as expired or abandoned exactly once.
    #[test]
    fn the_queue_behaves_like_its_reference(steps in prop::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let fixture = slots(MAX, LISTS_MAX);
            let queue = Queue::new();
            let mut reference = ReferenceQueue::default();
            for step in steps {
                match step {
                    Operation::Arrive(lengths, ms) => reference.arrive(&fixture, &queue, &lengths, ms),
                    Operation::Leave(position) => reference.leave(position),
                    Operation::Take(limits) => reference.take(&queue, limits),
                    Operation::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
                }
                assert_eq!(fixture.depth.get(), reference.len() as i64);
                assert_eq!(fixture.abandoned.get(), reference.left);
                let lists = reference.classes[Class::List as usize].len();
                assert_eq!(fixture.slots.taken(), (reference.len(), lists));
                for class in [Class::Single, Class::List] {
                    let texts = &reference.classes[class as usize];
                    let tokens: usize = texts.iter().map(|text| text.tokens).sum();
                    assert_eq!(fixture.slots.tokens(class), tokens);
                }
            }
        });
    }
}

#[test]
fn void_entries_are_bounded_while_the_engine_is_busy() {
    let fixture = slots(4, 4);
    let queue = Queue::new();
    for number in 0..10_000 {
        let tickets = fixture.slots.reserve(Class::Single, &[1]).unwrap();
        let (entry, _) = waiting(&tickets[0], number, 1, None);
        queue.push(vec![entry]).unwrap();
    }
    assert!(queue.entries() <= 130, "{}", queue.entries());
    assert_eq!(fixture.depth.get(), 0);
}

#[test]
fn a_closed_queue_gives_out_its_texts_and_accepts_none() {
    let fixture = slots(4, 4);
    let queue = Queue::new();
    let tickets = fixture.slots.reserve(Class::List, &[1, 1]).unwrap();
    queue
        .push(vec![waiting(&tickets[0], 0, 1, None).0])
        .unwrap();
    queue.close();
    assert!(
        queue
            .push(vec![waiting(&tickets[1], 1, 1, None).0])
            .is_err()
    );
    let limits = BatchLimits {
        tokens_max: 9,
        texts_max: 9,
    };
    assert!(
        matches!(queue.take(limits, WaitTime::Unlimited), Dequeued::Batch(batch) if batch.len() == 1)
    );
    assert!(matches!(
        queue.take(limits, WaitTime::Unlimited),
        Dequeued::Closed
    ));
}

#[test]
fn a_limited_wait_ends() {
    let limits = BatchLimits {
        tokens_max: 9,
        texts_max: 9,
    };
    let wait_time = WaitTime::AtMost(Duration::from_millis(1));
    assert!(matches!(
        Queue::new().take(limits, wait_time),
        Dequeued::Empty
    ));
}

/// Clients that arrive, wait briefly and leave, against an engine that keeps taking texts. Whichever side wins
/// each race, the sums are right in the end.
#[test]
fn taken_and_abandoned_add_up_under_contention() {
    let fixture = slots(64, 48);
    let queue = Queue::new();
    let limits = BatchLimits {
        tokens_max: 100,
        texts_max: 7,
    };
    let mut taken = 0;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (slots, queue) = (&fixture.slots, &queue);
                scope.spawn(move || {
                    for number in 0..5000 {
                        let expected_tokens = vec![2; 1 + number % 3];
                        let class = Class::of(expected_tokens.len());
                        let Ok(tickets) = slots.reserve(class, &expected_tokens) else {
                            continue;
                        };
                        let entry = |ticket| waiting(ticket, number, 1, None).0;
                        queue.push(tickets.iter().map(entry).collect()).unwrap();
                        for _ in 0..(number * client) % 50 {
                            std::hint::spin_loop();
                        }
                    }
                })
            })
            .collect();
        let engine = scope.spawn(|| {
            let mut taken = 0;
            while let Dequeued::Batch(batch) = queue.take(limits, WaitTime::Unlimited) {
                taken += batch.len() as u64;
            }
            taken
        });
        for client in clients {
            client.join().unwrap();
        }
        queue.close();
        taken = engine.join().unwrap();
    });
    assert_eq!(fixture.depth.get(), 0);
    assert_eq!(fixture.slots.taken(), (0, 0));
    assert_eq!(fixture.slots.tokens(Class::Single), 0);
    assert_eq!(fixture.slots.tokens(Class::List), 0);
    let abandoned = fixture.abandoned.get();
    assert!(
        taken > 0 && abandoned > 0,
        "{taken} taken, {abandoned} abandoned"
    );
}
