//! Where an inventory service under test can be told to die, and what it can be told to do without.

use millrace::sabotage::Sabotage;

millrace::crash_points! {
    /// A new product is stocked, and this process has not noted that it knows it.
    AFTER_PRODUCT_STOCKED = "after-product-stocked",
}

/// A cancellation that comes before its order leaves nothing.
pub static TOMBSTONE: Sabotage = Sabotage::new("tombstone");

/// Of this service.
pub static SABOTAGES: &[&Sabotage] = &[&TOMBSTONE];
