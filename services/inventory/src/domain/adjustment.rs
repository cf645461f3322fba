use contracts::ProductId;
use contracts::api::StockAdjustment;
use uuid::Uuid;

use super::Stock;

/// Longest reason that is kept, in characters: a sentence, not a document.
const MAX_REASON: usize = 200;

/// Units that came in or went out other than by an order. Kept for ever: per product they add up to its stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    pub product_id: ProductId,
    pub delta: i64,
    pub reason: String,
}

/// Why an adjustment is not made, and which field is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdjustmentRefused {
    #[error("product_id: {0} is not stocked; import it into the catalog first")]
    UnknownProduct(ProductId),
    #[error("delta: {delta} would leave {product_id} with less than nothing, {available} are available")]
    TooFew { product_id: ProductId, delta: i64, available: i64 },
    #[error("delta: {delta} would make the stock of {product_id} larger than can be counted")]
    TooMany { product_id: ProductId, delta: i64 },
    #[error("delta: it must not be 0")]
    Nothing,
    #[error("reason: it must have 1 to {MAX_REASON} characters")]
    Reason,
    #[error("adjustment_id: {0} was used before for another adjustment; make a new one")]
    IdTaken(Uuid),
}

impl AdjustmentRefused {
    /// The field of the request that is at fault.
    pub fn field(&self) -> &'static str {
        match self {
            Self::UnknownProduct(_) => "product_id",
            Self::TooFew { .. } | Self::TooMany { .. } | Self::Nothing => "delta",
            Self::Reason => "reason",
            Self::IdTaken(_) => "adjustment_id",
        }
    }
}

/// The stock after an adjustment and what to remember of it; `None` for both when it was made before.
pub fn adjust(
    made: Option<&Adjustment>,
    stock: Option<Stock>,
    asked: &StockAdjustment,
) -> Result<Option<(Stock, Adjustment)>, AdjustmentRefused> {
    let product_id = asked.product_id.clone();
    let delta = asked.delta;
    let adjustment = Adjustment { product_id: product_id.clone(), delta, reason: asked.reason.clone() };
    match made {
        Some(made) if *made == adjustment => return Ok(None),
        Some(_) => return Err(AdjustmentRefused::IdTaken(asked.adjustment_id)),
        None => {}
    }
    if delta == 0 {
        return Err(AdjustmentRefused::Nothing);
    }
    if asked.reason.trim().is_empty() || asked.reason.chars().count() > MAX_REASON {
        return Err(AdjustmentRefused::Reason);
    }
    let stock = stock.ok_or_else(|| AdjustmentRefused::UnknownProduct(product_id.clone()))?;
    // The total must stay countable too, since every unit may end up in any of the three counts.
    let countable = stock.total().checked_add(delta).is_some();
    match stock.available.checked_add(delta).filter(|_| countable) {
        None => Err(AdjustmentRefused::TooMany { product_id, delta }),
        Some(left) if left < 0 => Err(AdjustmentRefused::TooFew { product_id, delta, available: stock.available }),
        Some(available) => Ok(Some((Stock { available, ..stock }, adjustment))),
    }
}

/// The first stock of a product, with the adjustment that accounts for it; its id is the same wherever it is derived.
pub fn opening(product_id: &ProductId, units: u32) -> (Stock, Uuid, Adjustment) {
    let delta = i64::from(units);
    let stock = Stock { available: delta, ..Stock::default() };
    let name = format!("millrace:inventory:opening:{product_id}");
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
    (stock, id, Adjustment { product_id: product_id.clone(), delta, reason: "opening stock".into() })
}
