//! The queue against a plain list, and under contention.

use proptest::prelude::*;

use super::*;

fn gauges() -> (IntGauge, IntCounter) {
    (
        IntGauge::new("depth", "d").unwrap(),
        IntCounter::new("abandoned", "a").unwrap(),
    )
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

fn waiting(ticket: &Ticket, number: usize, tokens: usize) -> Waiting {
    let (reply, _) = oneshot::channel();
    Waiting::new(ticket, encoded(number, tokens), Instant::now(), reply)
}

#[derive(Debug, Clone)]
enum Step {
    /// A list of texts of these lengths comes in.
    Arrive(Vec<usize>),
    /// The client at this position, modulo those there are, leaves.
    Leave(usize),
    /// The engine takes a batch.
    Take(BatchLimits),
}

fn step() -> impl Strategy<Value = Step> {
    let limits = (1..40usize, 1..6usize).prop_map(|(tokens_max, texts_max)| BatchLimits {
        tokens_max,
        texts_max,
    });
    prop_oneof![
        prop::collection::vec(1..20usize, 1..5).prop_map(Step::Arrive),
        any::<usize>().prop_map(Step::Leave),
        limits.prop_map(Step::Take),
    ]
}

proptest! {
    /// Against a plain list: first come first served, limits kept, bounds kept, and each
    /// text either taken or abandoned, once.
    #[test]
    fn the_queue_is_a_list_of_those_who_stay(steps in prop::collection::vec(step(), 0..200)) {
        const MAX: usize = 8;
        let (depth, abandoned) = gauges();
        let slots = Slots::new(MAX, depth.clone(), abandoned.clone());
        let queue = Queue::new(MAX);
        let mut clients: Vec<(usize, Ticket)> = Vec::new();
            let mut model: Vec<(usize, usize)> = Vec::new();
        let (mut number, mut left) = (0, 0);
        for step in steps {
            match step {
                Step::Arrive(lengths) => match slots.reserve(lengths.len()) {
                    Ok(tickets) => {
                        let mut entries = Vec::new();
                        for (ticket, tokens) in tickets.into_iter().zip(lengths) {
                            entries.push(waiting(&ticket, number, tokens));
                            model.push((number, tokens));
                            clients.push((number, ticket));
                            number += 1;
                        }
                        prop_assert!(queue.push(entries).is_ok());
                    }
                    Err(refusal) => {
                        prop_assert!(model.len() + lengths.len() > MAX);
                        prop_assert_eq!(refusal, Refusal::QueueFull { max: MAX });
                    }
                },
                Step::Leave(position) if !clients.is_empty() => {
                    let (number, ticket) = clients.swap_remove(position % clients.len());
                    left += usize::from(model.iter().any(|(waiting, _)| *waiting == number));
                    model.retain(|(waiting, _)| *waiting != number);
                    drop(ticket);
                }
                Step::Leave(_) => {}
                Step::Take(limits) => match queue.take(limits, false) {
                    Work::Batch(batch) => {
                        let found: Vec<usize> =
                            batch.iter().map(|entry| entry.encoded.ids[0] as usize).collect();
                        let expected: Vec<(usize, usize)> = model.drain(..found.len()).collect();
                        let numbers: Vec<usize> = expected.iter().map(|(n, _)| *n).collect();
                        prop_assert_eq!(&found, &numbers);
                        let tokens: usize = expected.iter().map(|(_, t)| t).sum();
                        prop_assert!(found.len() <= limits.texts_max);
                        prop_assert!(tokens <= limits.tokens_max || found.len() == 1);
                        let next = model.first().map_or(usize::MAX / 2, |(_, t)| *t);
                        prop_assert!(
                            found.len() == limits.texts_max || tokens + next > limits.tokens_max,
                            "the batch had room for the next text"
                        );
                    }
                    Work::None => prop_assert!(model.is_empty()),
                    Work::Closed => prop_assert!(false, "nobody closed the queue"),
                },
            }
            prop_assert_eq!(depth.get(), model.len() as i64);
            prop_assert_eq!(abandoned.get(), left as u64);
        }
    }
}

#[test]
fn entries_of_clients_who_left_do_not_pile_up_while_the_engine_is_busy() {
    let (depth, abandoned) = gauges();
    let slots = Slots::new(4, depth.clone(), abandoned);
    let queue = Queue::new(4);
    for number in 0..1000 {
        let tickets = slots.reserve(1).unwrap();
        queue.push(vec![waiting(&tickets[0], number, 1)]).unwrap();
    }
    assert!(queue.lock().entries.len() <= 8);
    assert_eq!(depth.get(), 0);
}

#[test]
fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
    let (depth, abandoned) = gauges();
    let slots = Slots::new(4, depth, abandoned);
    let queue = Queue::new(4);
    let tickets = slots.reserve(2).unwrap();
    queue.push(vec![waiting(&tickets[0], 0, 1)]).unwrap();
    queue.close();
    assert!(queue.push(vec![waiting(&tickets[1], 1, 1)]).is_err());
    let limits = BatchLimits {
        tokens_max: 9,
        texts_max: 9,
    };
    assert!(matches!(queue.take(limits, true), Work::Batch(batch) if batch.len() == 1));
    assert!(matches!(queue.take(limits, true), Work::Closed));
}

/// Clients that come, wait a moment and leave, against an engine that takes all the time:
/// whoever wins each race, the sums are right in the end.
#[test]
fn taken_and_abandoned_add_up_under_contention() {
    let (depth, abandoned) = gauges();
    let slots = Slots::new(64, depth.clone(), abandoned.clone());
    let queue = Queue::new(64);
    let limits = BatchLimits {
        tokens_max: 100,
        texts_max: 7,
    };
    let mut taken = 0;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (slots, queue) = (&slots, &queue);
                scope.spawn(move || {
                    for number in 0..5000 {
                        let Ok(tickets) = slots.reserve(1 + number % 3) else {
                            continue;
                        };
                        let entry = |ticket| waiting(ticket, number, 1);
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
            while let Work::Batch(batch) = queue.take(limits, true) {
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
    assert_eq!(depth.get(), 0);
    assert_eq!(slots.taken.load(Ordering::Acquire), 0);
    assert!(
        taken > 0 && abandoned.get() > 0,
        "{taken} taken, {} abandoned",
        abandoned.get()
    );
}
