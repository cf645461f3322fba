//! Section `inventory` of the configuration.

use millrace::config::Invalid;
use serde::Deserialize;

/// An answer has to fit into one message: about 110 bytes per product, 1 MiB at most.
const MOST_LISTED: u32 = 9_000;

/// What an operator can set about inventory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most products that one answer of `api.inventory.stock` lists.
    pub list_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { list_max: 5_000 }
    }
}

impl Settings {
    /// Every setting that cannot be right, by its full name.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        if (1..=MOST_LISTED).contains(&self.list_max) {
            return Ok(());
        }
        let expected = format!("a number from 1 to {MOST_LISTED}");
        Err(vec![Invalid::new("inventory.list_max", self.list_max, expected)])
    }
}
