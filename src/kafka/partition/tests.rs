use super::*;

fn list(numbers: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for number in numbers {
        list.add_partition("ai-info", *number);
    }
    list
}

fn due(partitions: &Partitions) -> Vec<(i32, Offset)> {
    let due = partitions.take_due();
    let elements = due.iter().flat_map(|due| due.elements());
    elements
        .map(|element| (element.partition(), element.offset()))
        .collect()
}

#[test]
fn a_finished_record_is_committed_once() {
    let partitions = Partitions::default();
    partitions.add(&list(&[0, 1]));
    let partition = partitions.get("ai-info", 1).unwrap();
    for offset in 0..3 {
        partition.ledger().begin(offset, None);
    }
    assert_eq!(
        (due(&partitions), partitions.unfinished(&list(&[0, 1]))),
        (vec![(1, Offset::Offset(0))], 3),
        "where reading began"
    );
    partition.ledger().finish(0);
    partition.ledger().finish(2);
    assert_eq!(due(&partitions), [(1, Offset::Offset(1))]);
    assert_eq!(due(&partitions), []);
    partitions.put_back(&list(&[1]));
    assert_eq!(due(&partitions), [(1, Offset::Offset(1))]);
}

#[test]
fn a_partition_that_is_assigned_again_starts_anew() {
    let partitions = Partitions::default();
    partitions.add(&list(&[0]));
    let before = partitions.get("ai-info", 0).unwrap();
    before.ledger().begin(5, None);
    partitions.remove(&list(&[0]));
    assert!(partitions.get("ai-info", 0).is_none());
    partitions.add(&list(&[0]));
    before.ledger().finish(5);
    assert_eq!(due(&partitions), []);
}

#[test]
fn what_retention_removed_is_told_from_other_gaps() {
    let partition = Partition::new("ai-info", 0);
    partition.set_start(600);
    partition.begin(1000, None);
    assert_eq!(partition.removed_below(900), 300, "the rest was compacted");
    assert_eq!(partition.removed_below(900), 0, "told once");
    partition.begin(1010, None);
    partition.begin(1012, None);
    assert_eq!(partition.removed_below(1000), 0);
    partition.begin(1500, None);
    assert_eq!(partition.removed_below(1500), 1500 - 1013);
}

#[test]
fn a_start_outside_the_partition_is_corrected() {
    let started = |start: i64| {
        let partition = Partition::new("ai-info", 0);
        partition.set_start(start);
        let removed = partition.start_within(100, 200);
        partition.set_end(200);
        (removed, partition.lag().unwrap().unread)
    };
    assert_eq!(started(40), (60, 100));
    assert_eq!(started(150), (0, 50));
    assert_eq!(started(200), (0, 0));
    assert_eq!(started(900), (0, 100), "of an earlier topic");
}

#[test]
fn the_offset_passes_what_is_gone_once_nothing_is_left() {
    let partitions = Partitions::default();
    partitions.add(&list(&[0]));
    let partition = partitions.get("ai-info", 0).unwrap();
    partition.begin(0, None);
    assert_eq!((partition.skip_to(500), partition.skip_to(500)), (0, 0));
    partition.ledger().finish(0);
    partition.set_end(500);
    assert_eq!(partition.lag().unwrap().unread, 499);
    assert_eq!(partition.skip_to(500), 499);
    assert_eq!(partition.lag().unwrap().unread, 0);
    assert_eq!(due(&partitions), [(0, Offset::Offset(500))]);
    assert!(partition.begin(500, None));
}

#[test]
fn lag_counts_from_where_reading_is() {
    let lag = |unread, unfinished| Some(PartitionLag { unread, unfinished });
    let partition = Partition::new("ai-info", 0);
    assert_eq!(partition.lag(), None);
    assert_eq!(partition.set_end(100), 0);
    assert_eq!(
        partition.lag(),
        None,
        "the start of reading is not known yet"
    );
    partition.set_start(40);
    assert_eq!(partition.lag(), lag(60, 60));
    for offset in 40..50 {
        partition.ledger().begin(offset, None);
    }
    partition.ledger().finish(40);
    assert_eq!(partition.lag(), lag(50, 59));
    assert_eq!(partition.set_end(130), 30);
    assert_eq!(partition.lag(), lag(80, 89));
}

#[tokio::test]
async fn records_take_turns_until_their_partition_is_revoked() {
    let partitions = Partitions::default();
    partitions.add(&list(&[0]));
    let partition = partitions.get("ai-info", 0).unwrap();
    for offset in [3, 5, 9] {
        partition.begin(offset, None);
    }
    assert!(partition.turn(3).await);
    let next = tokio::spawn({
        let partition = Arc::clone(&partition);
        async move { partition.turn(5).await }
    });
    tokio::task::yield_now().await;
    assert!(!next.is_finished());
    partition.finish(3);
    assert!(next.await.unwrap());
    let last = tokio::spawn({
        let partition = Arc::clone(&partition);
        async move { partition.turn(9).await }
    });
    tokio::task::yield_now().await;
    partitions.remove(&list(&[0]));
    assert!(!last.await.unwrap());
}
