//! Numbers for values, so that a state of the whole system is a handful of small numbers.

/// Gives equal values the same number. There are dozens of each kind, so looking through them all is quick enough.
pub(crate) struct Numbered<T>(Vec<T>);

impl<T: PartialEq> Numbered<T> {
    /// Number 0 is `first`.
    pub(crate) fn starting_with(first: T) -> Self {
        Self(vec![first])
    }

    pub(crate) fn number_of(&mut self, value: T) -> u8 {
        let known = self.0.iter().position(|known| *known == value);
        let number = known.unwrap_or_else(|| {
            self.0.push(value);
            self.0.len() - 1
        });
        u8::try_from(number).expect("a service has more states for one order than fit; use a wider number")
    }

    pub(crate) fn get(&self, number: u8) -> &T {
        &self.0[usize::from(number)]
    }

    pub(crate) fn all(&self) -> &[T] {
        &self.0
    }
}
