//! `millrace catalog`: what can be ordered, in the key-value bucket that order and inventory watch.

use std::path::PathBuf;
use std::process::ExitCode;

use contracts::catalog::{BUCKET, Product};
use futures::{StreamExt, TryStreamExt};
use millrace::connection::Connection;
use millrace::topology;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Put products into the catalog: all of them, or none when one is wrong
    Import {
        /// TOML or JSON with a list `products`; without one, the demo catalog
        file: Option<PathBuf>,
        /// Take products that are not in the file off sale
        #[arg(long)]
        prune: bool,
    },
    /// Show the catalog
    List,
}

/// A catalog file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogFile {
    products: Vec<Product>,
}

/// Ships in the binary so that a first run has something to sell.
const DEMO: &str = include_str!("../../demo-catalog.toml");

pub async fn run(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::Import { file, prune } => {
            let products = match &file {
                None => demo_products()?,
                Some(path) => {
                    let text = std::fs::read_to_string(path)
                        .map_err(|e| Failure::new(format!("{}: {e}", path.display())).usage())?;
                    parse(&text, &path.display().to_string())?
                }
            };
            let connection = stack::connect(&context.settings, "catalog").await?;
            // The catalog is often the first thing that is done at a new broker.
            if context.settings.topology.auto_apply {
                let declared = context.settings.declared_topology();
                let made = topology::ensure(&connection, &declared, true, &CancellationToken::new()).await;
                made.map_err(|e| Failure::new(e.to_string()).remedy("millrace topology plan"))?;
            }
            let removed = import(&connection, &products, prune).await?;
            if context.json {
                output::json(&serde_json::json!({ "imported": products.len(), "removed": removed }));
            } else {
                output::line(&format!("{} products imported, {removed} taken off sale", products.len()));
            }
        }
        Command::List => {
            let connection = stack::connect(&context.settings, "catalog").await?;
            let products = list(&connection).await?;
            if context.json {
                output::json(&products);
            } else {
                let row = |p: &Product| {
                    vec![
                        p.product_id.to_string(),
                        p.name.clone(),
                        p.unit_price.to_string(),
                        p.opening_stock.to_string(),
                    ]
                };
                output::table(&["PRODUCT", "NAME", "PRICE", "OPENING STOCK"], products.iter().map(row));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn demo_products() -> Result<Vec<Product>, Failure> {
    parse(DEMO, "the demo catalog")
}

/// Reads a catalog file and refuses it whole when one product is wrong.
fn parse(text: &str, name: &str) -> Result<Vec<Product>, Failure> {
    let wrong = |reason: String| {
        Failure::new(format!("{name}: {reason}"))
            .remedy("look at docs/catalog.md for the format, and import again")
            .usage()
    };
    let file: CatalogFile = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?
    } else {
        toml::from_str(text).map_err(|e| wrong(e.to_string()))?
    };
    let mut ids = std::collections::HashSet::new();
    for product in &file.products {
        if !ids.insert(&product.product_id) {
            return Err(wrong(format!("product_id {} is there twice", product.product_id)));
        }
        if product.unit_price.minor <= 0 || product.unit_price.minor > contracts::money::MAX_MINOR {
            return Err(wrong(format!("unit_price of {} must be more than 0", product.product_id)));
        }
        if product.name.trim().is_empty() {
            return Err(wrong(format!("name of {} is empty", product.product_id)));
        }
    }
    if file.products.is_empty() { Err(wrong("it names no products".into())) } else { Ok(file.products) }
}

/// Puts the products into the bucket. Returns how many others were taken off sale.
pub async fn import(connection: &Connection, products: &[Product], prune: bool) -> Result<usize, Failure> {
    let bucket = bucket(connection).await?;
    for product in products {
        let value = serde_json::to_vec(product).map_err(|e| Failure::new(e.to_string()))?;
        bucket
            .put(product.product_id.as_str(), value.into())
            .await
            .map_err(|e| Failure::new(format!("the catalog bucket: {e}")))?;
    }
    let mut removed = 0;
    if prune {
        for old in list(connection).await? {
            if !products.iter().any(|product| product.product_id == old.product_id) {
                bucket
                    .delete(old.product_id.as_str())
                    .await
                    .map_err(|e| Failure::new(format!("the catalog bucket: {e}")))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

pub async fn list(connection: &Connection) -> Result<Vec<Product>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the catalog bucket: {e}"));
    let bucket = bucket(connection).await?;
    let mut keys: Vec<String> =
        bucket.keys().await.map_err(|e| failed(&e))?.try_collect().await.map_err(|e| failed(&e))?;
    keys.sort();
    let mut products = Vec::with_capacity(keys.len());
    let mut values = futures::stream::iter(keys).map(|key| bucket.get(key)).buffered(64);
    while let Some(value) = values.next().await {
        if let Some(value) = value.map_err(|e| failed(&e))? {
            products.push(serde_json::from_slice(&value).map_err(|e| failed(&e))?);
        }
    }
    Ok(products)
}

async fn bucket(connection: &Connection) -> Result<async_nats::jetstream::kv::Store, Failure> {
    connection.jetstream().get_key_value(BUCKET).await.map_err(|e| {
        Failure::new(format!("the catalog bucket cannot be opened: {e}")).remedy("millrace topology apply")
    })
}
