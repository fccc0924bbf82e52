//! Sets of offsets as ascending ranges that neither overlap nor touch. Pure.

use ddc_link::receiver::OffsetRange;

/// Adds offsets.
pub(crate) fn add(ranges: &mut Vec<OffsetRange>, range: OffsetRange) {
    let from = ranges.partition_point(|has| has.last.saturating_add(1) < range.first);
    let to = ranges.partition_point(|has| has.first <= range.last.saturating_add(1)).max(from);
    let first = ranges[from..to].first().map_or(range.first, |has| has.first.min(range.first));
    let last = ranges[from..to].last().map_or(range.last, |has| has.last.max(range.last));
    ranges.splice(from..to, [OffsetRange { first, last }]);
}

/// Takes offsets out; those that were there are returned.
pub(crate) fn remove(ranges: &mut Vec<OffsetRange>, range: OffsetRange) -> Vec<OffsetRange> {
    let from = ranges.partition_point(|has| has.last < range.first);
    let to = ranges.partition_point(|has| has.first <= range.last).max(from);
    let touched = &ranges[from..to];
    let taken = touched
        .iter()
        .map(|has| OffsetRange { first: has.first.max(range.first), last: has.last.min(range.last) });
    let taken: Vec<_> = taken.collect();
    let below = touched.first().filter(|has| has.first < range.first);
    let below = below.map(|has| OffsetRange { first: has.first, last: range.first - 1 });
    let above = touched.last().filter(|has| has.last > range.last);
    let above = above.map(|has| OffsetRange { first: range.last + 1, last: has.last });
    ranges.splice(from..to, below.into_iter().chain(above));
    taken
}

/// What of `range` is not in `ranges`.
pub(crate) fn outside(ranges: &[OffsetRange], range: OffsetRange) -> Vec<OffsetRange> {
    let mut rest = vec![range];
    let from = ranges.partition_point(|has| has.last < range.first);
    for has in ranges[from..].iter().take_while(|has| has.first <= range.last) {
        remove(&mut rest, *has);
    }
    rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[OffsetRange]) -> BTreeSet<i64> {
        ranges.iter().flat_map(|range| range.first..=range.last).collect()
    }

    proptest! {
        #[test]
        fn ranges_are_sets(steps in prop::collection::vec((any::<bool>(), 0_i64..60, 0_i64..12), 0..60)) {
            let (mut ranges, mut naive) = (Vec::new(), BTreeSet::new());
            for (adding, first, width) in steps {
                let range = OffsetRange { first, last: first + width };
                let offsets: BTreeSet<i64> = (first..=first + width).collect();
                prop_assert_eq!(set(&outside(&ranges, range)), &offsets - &naive);
                if adding {
                    add(&mut ranges, range);
                    naive.extend(&offsets);
                } else {
                    prop_assert_eq!(set(&remove(&mut ranges, range)), &offsets & &naive);
                    naive = &naive - &offsets;
                }
                prop_assert_eq!(set(&ranges), naive.clone());
                prop_assert!(ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "{:?}", ranges);
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_exception() {
        let whole = OffsetRange { first: i64::MIN, last: i64::MAX };
        let mut ranges = Vec::new();
        add(&mut ranges, whole);
        assert_eq!(remove(&mut ranges, whole), [whole]);
        assert!(ranges.is_empty());
    }
}
