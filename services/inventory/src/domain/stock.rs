/// Units of one product, by what they are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    /// Free to be reserved; never below zero.
    pub available: i64,
    /// Held for orders that are not decided yet.
    pub reserved: i64,
    /// Gone with confirmed orders.
    pub committed: i64,
}

impl Stock {
    /// Units that ever came in, less those taken out by adjustments.
    pub fn total(self) -> i64 {
        self.available + self.reserved + self.committed
    }

    /// Holds units for an order; `None` when there are too few.
    pub(super) fn hold(self, units: i64) -> Option<Self> {
        let held = Self { available: self.available - units, reserved: self.reserved + units, ..self };
        (units >= 0 && held.available >= 0).then_some(held)
    }

    /// Held units leave with their order.
    pub(super) fn commit(self, units: i64) -> Self {
        Self { reserved: self.reserved - units, committed: self.committed + units, ..self }
    }

    /// Held units become available again.
    pub(super) fn release(self, units: i64) -> Self {
        Self { available: self.available + units, reserved: self.reserved - units, ..self }
    }

    /// Committed units come back.
    pub(super) fn take_back(self, units: i64) -> Self {
        Self { available: self.available + units, committed: self.committed - units, ..self }
    }
}
