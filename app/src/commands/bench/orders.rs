//! What customers order: requests, written as they go over the wire.

use std::io::Write;
use std::net::SocketAddr;

use contracts::catalog::Product;
use contracts::{Currency, Money, ProductId};
use fastrand::Rng;

use crate::failure::Failure;

/// Products that orders are spread over.
const PRODUCTS: u32 = 50;
const CUSTOMERS: u32 = 1_000;
const HOT: &str = "bench-hot";
/// Never sold out.
const OPENING_STOCK: u32 = 2_000_000_000;
const PRICE_MINOR: i64 = 690;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taste {
    /// One or two of fifty products.
    Spread,
    /// All want the same one.
    Hot,
}

/// The catalog of a run.
pub fn products() -> Result<Vec<Product>, Failure> {
    let currency: Currency = "EUR".parse().map_err(|e| Failure::new(format!("{e}")))?;
    let product = |id: String| {
        Ok(Product {
            product_id: ProductId::new(&id).map_err(|e| Failure::new(e.to_string()))?,
            name: id,
            unit_price: Money { minor: PRICE_MINOR, currency },
            opening_stock: OPENING_STOCK,
        })
    };
    (0..PRODUCTS).map(|n| format!("bench-{n}")).chain([HOT.to_owned()]).map(product).collect()
}

/// Writes one `POST /orders` over what `request` held. The number makes its Idempotency-Key: customers who want to be
/// charged once send one.
pub fn write(request: &mut Vec<u8>, host: SocketAddr, number: u64, taste: Taste, rng: &mut Rng) {
    request.clear();
    let customer = rng.u32(..CUSTOMERS);
    let mut body = [0_u8; 512];
    let mut rest = &mut body[..];
    let items = match taste {
        Taste::Hot => format!(r#"{{"product_id":"{HOT}","quantity":1}}"#),
        Taste::Spread => {
            let (first, quantity) = (rng.u32(..PRODUCTS), rng.u32(1..4));
            let first_item = format!(r#"{{"product_id":"bench-{first}","quantity":{quantity}}}"#);
            match rng.bool() {
                true => first_item,
                false => format!(r#"{first_item},{{"product_id":"bench-{}","quantity":1}}"#, (first + 1) % PRODUCTS),
            }
        }
    };
    // Writing to memory fails for want of room only, and there is more than the longest order takes.
    let _ = write!(
        rest,
        r#"{{"customer_id":"bench-{customer}","email":"c{customer}@example.org","payment_method":"pm_card_visa","items":[{items}]}}"#
    );
    let left = rest.len();
    let body = &body[..body.len() - left];
    let _ = write!(
        request,
        "POST /orders HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nidempotency-key: bench-{number}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    request.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_and_the_same_seed_draws_the_same_orders() {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        let text = |seed, taste| {
            let (mut request, mut rng) = (Vec::new(), Rng::with_seed(seed));
            (0..100).for_each(|number| write(&mut request, host, number, taste, &mut rng));
            String::from_utf8(request).unwrap()
        };
        assert_eq!(text(1, Taste::Spread), text(1, Taste::Spread));
        for taste in [Taste::Spread, Taste::Hot] {
            let request = text(3, taste);
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{request}");
            let order: order::api::PlaceOrder = serde_json::from_str(body).unwrap();
            assert_eq!(order.items.iter().any(|item| item.product_id.as_str() == HOT), taste == Taste::Hot);
        }
        assert_eq!(products().unwrap().len(), PRODUCTS as usize + 1);
    }
}
