//! `millrace stock`: asks the inventory service, over request/reply.

use std::process::ExitCode;
use std::time::Duration;

use contracts::ProductId;
use contracts::api::{StockAdjustment, StockLevel, StockLevels, StockQuery, subjects};
use millrace::request_reply::request_json;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What is available, held for orders, and gone
    List {
        /// Only this product
        product: Option<ProductId>,
    },
    /// Add to or take from what is available
    #[command(allow_negative_numbers = true)]
    Adjust {
        product: ProductId,
        /// How many to add; negative to take away
        delta: i64,
        #[arg(long, default_value = "adjusted by hand")]
        reason: String,
        /// Repeating a call with the same id counts once [default: a new one]
        #[arg(long)]
        id: Option<uuid::Uuid>,
    },
}

const DEADLINE: Duration = Duration::from_secs(5);

pub async fn run(context: &Context, command: Command) -> CommandResult {
    let connection = stack::connect(&context.settings, "stock").await?;
    let failed = |error: millrace::request_reply::RequestError| {
        Failure::new(format!("the inventory service: {error}"))
            .remedy("is it running? millrace serve inventory, or millrace doctor")
    };
    match command {
        Command::List { product } => {
            let query = StockQuery { product_id: product };
            let stock: StockLevels =
                request_json(&connection, subjects::INVENTORY_STOCK, &query, DEADLINE).await.map_err(failed)?;
            show(context, &stock.levels);
        }
        Command::Adjust { product, delta, reason, id } => {
            let adjustment = StockAdjustment {
                adjustment_id: id.unwrap_or_else(uuid::Uuid::now_v7),
                product_id: product,
                delta,
                reason,
            };
            let level: StockLevel =
                request_json(&connection, subjects::INVENTORY_ADJUST, &adjustment, DEADLINE).await.map_err(failed)?;
            show(context, &[level]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(context: &Context, levels: &[StockLevel]) {
    if context.json {
        output::json(&levels);
        return;
    }
    let row = |l: &StockLevel| {
        vec![l.product_id.to_string(), l.available.to_string(), l.reserved.to_string(), l.committed.to_string()]
    };
    output::table(&["PRODUCT", "AVAILABLE", "RESERVED", "COMMITTED"], levels.iter().map(row));
}
