//! A sorted set that is most often of one.

use std::collections::BTreeSet;

/// A sorted set that is most often of one: then it stands where the set would, and nothing is allocated.
pub(super) enum Few<T> {
    One(T),
    Many(BTreeSet<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few::Many(BTreeSet::new())
    }
}

impl<T: Copy + Ord> Few<T> {
    pub(super) fn first(&self) -> Option<T> {
        match self {
            Few::One(one) => Some(*one),
            Few::Many(many) => many.first().copied(),
        }
    }

    /// Whether it was not there.
    pub(super) fn insert(&mut self, value: T) -> bool {
        match self {
            Few::One(one) if *one == value => false,
            Few::One(one) => {
                *self = Few::Many([*one, value].into());
                true
            }
            Few::Many(many) if many.is_empty() => {
                *self = Few::One(value);
                true
            }
            Few::Many(many) => many.insert(value),
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, value: T) -> bool {
        match self {
            Few::One(one) if *one == value => {
                *self = Few::default();
                true
            }
            Few::One(_) => false,
            Few::Many(many) => many.remove(&value),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Few::One(_) => 1,
            Few::Many(many) => many.len(),
        }
    }

    /// How many come before this one, at most `max`.
    pub(super) fn before(&self, value: T, max: usize) -> usize {
        match self {
            Few::One(one) => usize::from(*one < value).min(max),
            Few::Many(many) => many.range(..value).take(max).count(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        let (one, many) = match self {
            Few::One(one) => (Some(*one), None),
            Few::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_sorted_set() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut few, mut set) = (Few::default(), BTreeSet::new());
        for _ in 0..2_000 {
            let value = random.u8(..4);
            match random.bool() {
                true => assert_eq!(few.insert(value), set.insert(value)),
                false => assert_eq!(few.remove(value), set.remove(&value)),
            }
            assert_eq!((few.len(), few.first()), (set.len(), set.first().copied()));
            assert!(few.iter().eq(set.iter().copied()));
            assert_eq!(few.before(2, 1), set.range(..2).count().min(1));
        }
    }
}
