//! Which symbols of one kind are there: 128 bits.

use crate::MAX_SOURCES;

/// A set of symbol indices 0..[`MAX_SOURCES`] of one kind (source or repair) in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SymbolSet(u128);

impl SymbolSet {
    /// No symbol.
    pub const EMPTY: Self = Self(0);

    /// The symbols 0 to `count` − 1; a `count` above [`MAX_SOURCES`] gives all of them.
    pub const fn first(count: usize) -> Self {
        if count >= MAX_SOURCES { Self(u128::MAX) } else { Self((1 << count) - 1) }
    }

    /// Adds a symbol; false when it was there already or the index is not below [`MAX_SOURCES`].
    pub const fn insert(&mut self, index: usize) -> bool {
        let fits = index < MAX_SOURCES && !self.contains(index);
        if fits {
            self.0 |= 1 << index;
        }
        fits
    }

    /// Takes a symbol out; false when it was not there.
    pub const fn remove(&mut self, index: usize) -> bool {
        let there = self.contains(index);
        if there {
            self.0 &= !(1 << index);
        }
        there
    }

    /// Is this symbol there?
    pub const fn contains(self, index: usize) -> bool {
        index < MAX_SOURCES && self.0 >> index & 1 == 1
    }

    /// How many symbols are there.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Is no symbol there?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What of the symbols 0 to `count` − 1 is not there.
    pub const fn missing(self, count: usize) -> Self {
        Self(Self::first(count).0 & !self.0)
    }

    /// The highest index that is there.
    pub fn last(self) -> Option<usize> {
        self.0.checked_ilog2().map(|bit| bit as usize)
    }

    /// The indices, rising.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(index)
        })
    }
}

impl FromIterator<usize> for SymbolSet {
    /// Indices that are not below [`MAX_SOURCES`] are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::EMPTY;
        for index in indices {
            set.insert(index);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_set_up_to_its_last_bit() {
        let mut set = SymbolSet::EMPTY;
        assert!(set.is_empty() && set.last().is_none());
        assert!(set.insert(127) && set.insert(0) && !set.insert(127));
        assert!(!set.insert(128) && !set.contains(128) && !set.remove(128));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 127]);
        assert_eq!((set.len(), set.last()), (2, Some(127)));
        assert!(set.remove(127) && !set.remove(127));
        assert_eq!(set, SymbolSet::first(1));
    }

    #[test]
    fn first_and_missing_are_complements() {
        for count in 0..=130 {
            assert_eq!(SymbolSet::first(count).len(), count.min(128));
            let even: SymbolSet = (0..count).step_by(2).collect();
            let odd: SymbolSet = (1..count).step_by(2).collect();
            assert_eq!(even.missing(count), odd);
        }
    }
}
