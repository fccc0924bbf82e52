//! Which packet numbers of a session came: the replay window.
//!
//! One bit for each of the last [`WINDOW`] numbers up to the highest authenticated one. A number is
//! marked only after its tag verified, so that nobody without the key can move the window.

/// Packet numbers that the window covers: at least 65,536, and at least twice what the widest
/// interleaving (255 blocks of 255 symbols) can put between two packets that belong together.
pub const WINDOW: u64 = 131_072;
const _: () = assert!(WINDOW >= 2 * 255 * 255 && WINDOW.is_multiple_of(64));

const WORDS: usize = (WINDOW / 64) as usize;

/// What the window knows of a packet number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not seen, and it would be if it had come.
    New,
    /// Seen before.
    Before,
    /// So far behind the highest that nobody knows.
    TooOld,
}

/// The last [`WINDOW`] packet numbers of one session; 16 KiB.
pub(crate) struct ReplayWindow {
    /// Bit n % WINDOW stands for packet number n.
    bits: Box<[u64; WORDS]>,
    highest: Option<u64>,
}

impl ReplayWindow {
    pub(crate) fn new() -> Self {
        Self { bits: Box::new([0; WORDS]), highest: None }
    }

    /// The highest number marked.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    pub(crate) fn seen(&self, number: u64) -> Seen {
        match self.highest {
            Some(highest) if number <= highest => {
                if highest - number >= WINDOW {
                    Seen::TooOld
                } else if self.bits[word(number)] & bit(number) != 0 {
                    Seen::Before
                } else {
                    Seen::New
                }
            }
            _ => Seen::New,
        }
    }

    /// Marks a number that is [`Seen::New`]; the window moves up when it is the highest.
    pub(crate) fn mark(&mut self, number: u64) {
        if let Some(highest) = self.highest
            && number > highest
        {
            self.clear(highest + 1, number);
        }
        self.highest = self.highest.max(Some(number));
        self.bits[word(number)] |= bit(number);
    }

    /// How many of the numbers `first..end` came. The caller keeps `first` within the window.
    pub(crate) fn count(&self, first: u64, end: u64) -> u64 {
        let end = end.min(self.highest.map_or(0, |highest| highest.saturating_add(1)));
        let mut count = 0;
        for_words(first, end, |word, mask| count += u64::from((self.bits[word] & mask).count_ones()));
        count
    }

    /// Clears the bits of `first..=last`, whose places held numbers that now leave the window.
    fn clear(&mut self, first: u64, last: u64) {
        if last - first >= WINDOW {
            self.bits.fill(0);
        } else {
            let bits = &mut self.bits;
            // `last` may be the greatest number there is, so its own bit goes by itself.
            for_words(first, last, |word, mask| bits[word] &= !mask);
            bits[word(last)] &= !bit(last);
        }
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

/// Calls `each` with the words and masks that cover `first..end`: at most WORDS + 1 steps, since
/// both callers keep the range within one window.
fn for_words(first: u64, end: u64, mut each: impl FnMut(usize, u64)) {
    let mut at = first;
    while at < end {
        let in_word = (64 - at % 64).min(end - at);
        let ones = if in_word == 64 { u64::MAX } else { (1 << in_word) - 1 };
        each(word(at), ones << (at % 64));
        at += in_word;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_is_exact_at_its_edge() {
        let mut window = ReplayWindow::new();
        window.mark(5);
        window.mark(5 + WINDOW - 1);
        assert_eq!(window.seen(5), Seen::Before);
        assert_eq!(window.seen(6), Seen::New);
        window.mark(5 + WINDOW);
        assert_eq!(window.seen(5), Seen::TooOld);
        assert_eq!(window.seen(6), Seen::New, "the place of 5 was cleared for its successor only");
        window.mark(u64::MAX);
        assert_eq!(window.seen(u64::MAX), Seen::Before);
        assert_eq!(window.seen(u64::MAX - 1), Seen::New);
        assert_eq!(window.seen(0), Seen::TooOld);
    }

    proptest! {
        /// Any numbers in any order: exactly what a set would say.
        #[test]
        fn behaves_as_a_set(steps in proptest::collection::vec((0u64..400_000, 0u8..4), 1..200), base: u32) {
            let mut window = ReplayWindow::new();
            let mut model = BTreeSet::new();
            let mut at = u64::from(base);
            for (step, how) in steps {
                at = match how { 0 => at + step, 1 => at.saturating_sub(step), 2 => at + step % 200, _ => at + 1 };
                let highest = model.last().copied();
                let expected = match highest {
                    Some(highest) if at <= highest && highest - at >= WINDOW => Seen::TooOld,
                    _ if model.contains(&at) => Seen::Before,
                    _ => Seen::New,
                };
                prop_assert_eq!(window.seen(at), expected);
                if expected == Seen::New {
                    window.mark(at);
                    model.insert(at);
                }
                let highest = *model.last().unwrap();
                prop_assert_eq!(window.highest(), Some(highest));
                let from = highest.saturating_sub(WINDOW - 1);
                prop_assert_eq!(window.count(from, highest + 1), model.range(from..=highest).count() as u64);
                prop_assert_eq!(window.count(from + 3, highest), model.range((from + 3)..highest.max(from + 3)).count() as u64);
            }
        }
    }
}
