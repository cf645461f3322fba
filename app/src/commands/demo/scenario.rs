//! What a scenario is.

use std::fmt;

use contracts::catalog::Product;
use contracts::{Currency, Money, ProductId};
use futures::future::LocalBoxFuture;

use super::trial::Trial;
use super::world::World;
use crate::failure::Failure;

/// One scenario of the story.
pub struct Scenario {
    /// Short, for tables and programs.
    pub name: &'static str,
    /// What happens in it, in one sentence.
    pub title: &'static str,
    /// How every order in it ends: `confirmed` or `cancelled (REASON)`.
    pub expects: &'static str,
    /// What it sells. No two scenarios sell the same, so that each can count its stock while others run.
    pub wares: &'static [Ware],
    pub tell: for<'a> fn(&'a World, &'a Trial) -> LocalBoxFuture<'a, Result<(), Deviation>>,
}

/// A product of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Ware {
    pub id: &'static str,
    pub name: &'static str,
    /// In cents.
    pub price: i64,
    /// How many there are at first.
    pub stock: u32,
}

/// Something did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    pub expected: String,
    pub seen: String,
}

impl Deviation {
    pub fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { expected: expected.into(), seen: seen.into() }
    }

    /// Holds `what` against what it should be.
    pub fn unless_equal<T: PartialEq + fmt::Debug>(what: &str, seen: &T, expected: &T) -> Result<(), Self> {
        if seen == expected {
            return Ok(());
        }
        Err(Self::new(format!("{what}: {expected:?}"), format!("{seen:?}")))
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}; saw {}", self.expected, self.seen)
    }
}

/// Whoever is asked in a scenario has to answer.
impl From<Failure> for Deviation {
    fn from(failure: Failure) -> Self {
        Self::new("an answer", failure.message)
    }
}

impl Ware {
    pub fn product_id(&self) -> Result<ProductId, Failure> {
        ProductId::new(self.id).map_err(|e| Failure::new(format!("{}: {e}", self.id)))
    }

    pub fn product(&self) -> Result<Product, Failure> {
        Ok(Product {
            product_id: self.product_id()?,
            name: self.name.to_owned(),
            unit_price: Money { minor: self.price, currency: euro()? },
            opening_stock: self.stock,
        })
    }
}

/// What the demo is paid in.
pub fn euro() -> Result<Currency, Failure> {
    "EUR".parse().map_err(|e| Failure::new(format!("{e}")))
}

/// `12.90 EUR`
pub fn in_euro(minor: i64) -> String {
    euro().map(|currency| Money { minor, currency }.to_string()).unwrap_or_else(|_| format!("{minor} cents"))
}
