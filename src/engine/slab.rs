//! Values by small numbers.

/// Values by small numbers, which are used again.
pub(super) struct Slab<T> {
    values: Vec<Option<T>>,
    unused: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { values: Vec::new(), unused: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.unused.pop() {
            Some(at) => {
                self.values[at as usize] = Some(value);
                at
            }
            None => {
                self.values.push(Some(value));
                self.values.len() as u32 - 1
            }
        }
    }

    pub(super) fn remove(&mut self, at: u32) -> T {
        self.unused.push(at);
        self.values[at as usize].take().expect(HELD)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().flatten()
    }
}

const HELD: &str = "a number is held only for as long as its value is there";

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, at: u32) -> &T {
        self.values[at as usize].as_ref().expect(HELD)
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.values[at as usize].as_mut().expect(HELD)
    }
}
