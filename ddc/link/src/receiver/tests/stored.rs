//! Positions that come from outside: what is refused, and the table they are put into.

use ddc_wire::{Epoch, TopicId};
use proptest::prelude::*;

use super::*;

fn key() -> PartitionKey {
    let (stream, topic) = (String::new(), "orders".to_owned());
    PartitionKey { stream, topic, topic_id: TopicId::Uuid([7; 16]), partition: 3 }
}

#[test]
fn a_stored_position_is_refused_when_it_contradicts_itself() {
    let holes =
        |ranges: &[(i64, i64)]| ranges.iter().map(|&(first, last)| OffsetRange { first, last }).collect();
    let stored = |next, ranges: &[(i64, i64)]| Position::stored(next, Epoch(1), 0, 0, holes(ranges));
    assert!(stored(0, &[]).is_ok());
    assert!(stored(10, &[(0, 1), (3, 3), (5, 9)]).is_ok());
    assert!(stored(-1, &[]).is_err());
    for wrong in
        [&[(0, 10)][..], &[(-1, 2)], &[(3, 2)], &[(0, 1), (2, 3)], &[(4, 5), (0, 1)], &[(0, 4), (4, 5)]]
    {
        assert!(stored(10, wrong).is_err(), "{wrong:?}");
    }
    let many: Vec<_> = (0..=MAX_HOLES as i64).map(|at| (3 * at, 3 * at)).collect();
    assert!(stored(i64::MAX, &many[1..]).is_ok());
    assert!(stored(i64::MAX, &many).is_err());
    let position = stored(10, &[(3, 4)]).unwrap();
    let settled: Vec<_> = (0..12).filter(|offset| position.is_settled(*offset)).collect();
    assert_eq!(settled, [0, 1, 2, 5, 6, 7, 8, 9]);
}

proptest! {
    /// Whatever is restored and removed, in any order: the table knows what a map knows, and evicts nobody wrongly.
    #[test]
    fn restored_and_removed(steps in proptest::collection::vec((0..6i32, 0..4u8), 0..60)) {
        let mut positions = Positions::default();
        let mut model = std::collections::BTreeMap::new();
        for (time, (partition, what)) in steps.into_iter().enumerate() {
            let key = PartitionKey { partition, ..key() };
            if what == 0 {
                let removed = positions.remove(&key).map(|position| position.next());
                prop_assert_eq!(removed, model.remove(&partition).map(|(next, _)| next));
            } else {
                let position = Position::stored(time as i64, Epoch(1), 0, 0, Vec::new()).unwrap();
                prop_assert_eq!(positions.restore(&key, position), None);
                model.insert(partition, (time as i64, time));
            }
            let mut expected: Vec<_> = model.iter().map(|(partition, (next, at))| (*at, *partition, *next)).collect();
            expected.sort_unstable();
            let seen: Vec<_> = positions.iter().map(|(key, position)| (key.partition, position.next())).collect();
            let expected: Vec<_> = expected.into_iter().map(|(_, partition, next)| (partition, next)).collect();
            prop_assert_eq!(&seen, &expected, "by their last touch");
            for (partition, next) in seen {
                prop_assert_eq!(positions.get(&PartitionKey { partition, ..self::key() }).unwrap().next(), next);
            }
            prop_assert_eq!(positions.len(), model.len());
        }
    }
}
