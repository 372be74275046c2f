//! Slots and queue against plain lists, and under contention.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fill::BatchLimits;
use super::slots::{Class, Full, Room, Slots, Ticket};
use super::waiting::{Answer, Answered, Patience, Queue, Waiting, Work};
use crate::error::Refusal;
use crate::model::Encoded;

struct Seen {
    slots: Arc<Slots>,
    depth: IntGauge,
    abandoned: IntCounter,
}

fn slots(slots: usize, lists: usize) -> Seen {
    let depth = IntGauge::new("depth", "d").unwrap();
    let abandoned = IntCounter::new("abandoned", "a").unwrap();
    Seen {
        slots: Slots::new(Room { slots, lists }, depth.clone(), abandoned.clone()),
        depth,
        abandoned,
    }
}

/// A text of `tokens` tokens that carries its number as its first id.
fn encoded(number: usize, tokens: usize) -> Encoded {
    let mut ids = vec![0; tokens];
    ids[0] = u32::try_from(number).unwrap();
    Encoded {
        type_ids: vec![0; tokens],
        ids,
        truncated: false,
    }
}

type Reply = oneshot::Receiver<Answer>;

fn answered() -> Answered {
    Answered {
        logits: vec![1.0],
        computed: Duration::ZERO,
    }
}

fn waiting(
    ticket: &Ticket,
    number: usize,
    tokens: usize,
    deadline: Option<Instant>,
) -> (Waiting, Reply) {
    let (reply, receiver) = oneshot::channel();
    let times = (Instant::now(), deadline);
    let entry = Waiting::new(ticket, encoded(number, tokens), times, reply);
    (entry, receiver)
}

fn numbers(batch: &[Waiting]) -> Vec<usize> {
    batch
        .iter()
        .map(|entry| entry.encoded.ids[0] as usize)
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// A request of texts of these lengths comes in; its time is up after so many milliseconds.
    Arrive(Vec<usize>, Option<u64>),
    /// The client of the text at this position, modulo those there are, leaves.
    Leave(usize),
    /// The engine takes a batch.
    Take(BatchLimits),
    /// Time passes.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let limits = (1..40usize, 1..6usize).prop_map(|(tokens_max, texts_max)| BatchLimits {
        tokens_max,
        texts_max,
    });
    let lengths = prop::collection::vec(1..20usize, 1..5);
    let time = prop::option::of(1..100u64);
    prop_oneof![
        3 => (lengths, time).prop_map(|(lengths, time)| Step::Arrive(lengths, time)),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => limits.prop_map(Step::Take),
        1 => (1..50u64).prop_map(Step::Pass),
    ]
}

const MAX: usize = 8;
const LISTS_MAX: usize = 5;

/// One text of the plain model.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Text {
    number: usize,
    tokens: usize,
    deadline: Option<Instant>,
}

/// What the queue should do, by two lists.
#[derive(Default)]
struct Plain {
    classes: [Vec<Text>; 2],
    clients: Vec<(usize, Ticket)>,
    replies: Vec<(usize, Reply)>,
    next: usize,
    left: u64,
}

impl Plain {
    fn len(&self) -> usize {
        self.classes.iter().map(Vec::len).sum()
    }

    fn arrive(&mut self, seen: &Seen, queue: &Queue, lengths: &[usize], ms: Option<u64>) {
        let class = Class::of(lengths.len());
        // What the tokens are guessed to be makes no difference to what is let in.
        let guesses = vec![3; lengths.len()];
        let lists = self.classes[Class::List as usize].len();
        match seen.slots.reserve(class, &guesses) {
            Ok(tickets) => {
                let deadline = ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                let mut entries = Vec::new();
                for (ticket, &tokens) in tickets.into_iter().zip(lengths) {
                    let number = self.next;
                    let (entry, reply) = waiting(&ticket, number, tokens, deadline);
                    entries.push(entry);
                    self.replies.push((number, reply));
                    self.clients.push((number, ticket));
                    let text = Text {
                        number,
                        tokens,
                        deadline,
                    };
                    self.classes[class as usize].push(text);
                    self.next += 1;
                }
                assert!(queue.push(entries).is_ok());
            }
            Err(Full::Slots { max }) => {
                assert_eq!(max, MAX);
                assert!(self.len() + lengths.len() > MAX);
            }
            Err(Full::Lists { max }) => {
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
        let work = queue.take(limits, Patience::None);
        let late = |text: &Text| text.deadline.is_some_and(|deadline| deadline <= now);
        let batch = match work {
            Work::Batch(batch) => batch,
            Work::None => Vec::new(),
            Work::Closed => panic!("nobody closed the queue"),
        };
        // Those that are late may stand behind others that did not fit; they are looked at in turn.
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
            // Of the two that are next, the one whose turn it is did not fit.
            let fits = |texts: &Vec<Text>| {
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
    /// Against plain lists: first come first served within a class, limits kept, bounds kept, and
    /// each text taken, refused as late or abandoned, once.
    #[test]
    fn the_queue_is_two_lists_of_those_who_stay(steps in prop::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let seen = slots(MAX, LISTS_MAX);
            let queue = Queue::new();
            let mut plain = Plain::default();
            for step in steps {
                match step {
                    Step::Arrive(lengths, ms) => plain.arrive(&seen, &queue, &lengths, ms),
                    Step::Leave(position) => plain.leave(position),
                    Step::Take(limits) => plain.take(&queue, limits),
                    Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
                }
                assert_eq!(seen.depth.get(), plain.len() as i64);
                assert_eq!(seen.abandoned.get(), plain.left);
                let lists = plain.classes[Class::List as usize].len();
                assert_eq!(seen.slots.taken(), (plain.len(), lists));
                for class in [Class::Single, Class::List] {
                    let texts = &plain.classes[class as usize];
                    let tokens: usize = texts.iter().map(|text| text.tokens).sum();
                    assert_eq!(seen.slots.tokens(class), tokens);
                }
            }
        });
    }
}

#[test]
fn entries_of_clients_who_left_do_not_pile_up_while_the_engine_is_busy() {
    let seen = slots(4, 4);
    let queue = Queue::new();
    for number in 0..10_000 {
        let tickets = seen.slots.reserve(Class::Single, &[1]).unwrap();
        let (entry, _) = waiting(&tickets[0], number, 1, None);
        queue.push(vec![entry]).unwrap();
    }
    assert!(queue.entries() <= 130, "{}", queue.entries());
    assert_eq!(seen.depth.get(), 0);
}

#[test]
fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
    let seen = slots(4, 4);
    let queue = Queue::new();
    let tickets = seen.slots.reserve(Class::List, &[1, 1]).unwrap();
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
        matches!(queue.take(limits, Patience::Endless), Work::Batch(batch) if batch.len() == 1)
    );
    assert!(matches!(
        queue.take(limits, Patience::Endless),
        Work::Closed
    ));
}

#[test]
fn limited_patience_ends() {
    let limits = BatchLimits {
        tokens_max: 9,
        texts_max: 9,
    };
    let patience = Patience::Limited(Duration::from_millis(1));
    assert!(matches!(Queue::new().take(limits, patience), Work::None));
}

/// Clients that come, wait a moment and leave, against an engine that takes all the time:
/// whoever wins each race, the sums are right in the end.
#[test]
fn taken_and_abandoned_add_up_under_contention() {
    let seen = slots(64, 48);
    let queue = Queue::new();
    let limits = BatchLimits {
        tokens_max: 100,
        texts_max: 7,
    };
    let mut taken = 0;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (slots, queue) = (&seen.slots, &queue);
                scope.spawn(move || {
                    for number in 0..5000 {
                        let guesses = vec![2; 1 + number % 3];
                        let class = Class::of(guesses.len());
                        let Ok(tickets) = slots.reserve(class, &guesses) else {
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
            while let Work::Batch(batch) = queue.take(limits, Patience::Endless) {
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
    assert_eq!(seen.depth.get(), 0);
    assert_eq!(seen.slots.taken(), (0, 0));
    assert_eq!(seen.slots.tokens(Class::Single), 0);
    assert_eq!(seen.slots.tokens(Class::List), 0);
    let abandoned = seen.abandoned.get();
    assert!(
        taken > 0 && abandoned > 0,
        "{taken} taken, {abandoned} abandoned"
    );
}
