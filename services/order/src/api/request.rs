//! The body of `POST /orders`: read leniently, judged completely. Whoever sends ten mistakes is told ten mistakes.

use std::collections::HashMap;

use contracts::money::MoneyError;
use contracts::orders::{Contact, Item, PricedItem};
use contracts::{Currency, CustomerId, Money, ProductId};
use millrace::problem::FieldError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::catalog::Products;
use crate::settings::Settings;

/// A new order. Prices come from the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    pub customer_id: CustomerId,
    /// The gateway's token for the means of payment: 1 to 128 visible ASCII characters.
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = "pm_card_visa")]
    pub payment_method: String,
    /// Each product once, at most 100 of them (setting `order.max_items`), each from the catalog, all sold in one
    /// currency. A total above the setting `order.max_total_minor` is refused.
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<Item>,
    /// Where to send mail about the order. Absent: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "email", max_length = 254, example = "ada@example.com")]
    pub email: Option<String>,
    /// Where to send text messages about the order, in E.164. Absent: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^\+[1-9][0-9]{6,14}$", example = "+4915112345678")]
    pub phone: Option<String>,
    /// What the customer expects to pay in; refused when the products are sold in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}

/// A request that can become an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) customer_id: CustomerId,
    pub(crate) payment_method: String,
    pub(crate) contact: Contact,
    pub(crate) items: Vec<PricedItem>,
    pub(crate) total: Money,
}

/// Tells whether two bodies are the same request. Order of fields and white space do not matter.
pub(crate) fn hash(body: &Value) -> String {
    let mut canonical = Vec::with_capacity(512);
    write_canonical(body, &mut canonical);
    let digest = Sha256::digest(&canonical);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// Writing to memory cannot fail.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in fields {
                let _ = serde_json::to_writer(&mut *out, name);
                out.push(b':');
                write_canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(values) => {
            out.push(b'[');
            for value in values {
                write_canonical(value, out);
                out.push(b',');
            }
            out.push(b']');
        }
        plain => {
            let _ = serde_json::to_writer(&mut *out, plain);
        }
    }
}

/// Checks a body against everything that can be said about it without asking the database.
pub(crate) fn check(body: &Value, products: &Products, limits: &Settings) -> Result<Checked, Vec<FieldError>> {
    let Some(fields) = body.as_object() else {
        return Err(vec![FieldError::new("", format!("must be an object, not {}", kind(body)))]);
    };
    let mut check = Check { errors: Vec::new() };
    check.only_known(fields, "", &["customer_id", "payment_method", "items", "email", "phone", "currency"]);
    let customer_id = check.customer(fields);
    let payment_method = check.payment_method(fields);
    let email = check.optional(fields, "email", is_email, "must be an e-mail address such as ada@example.com");
    let phone = check.optional(fields, "phone", is_phone, "must be a phone number in E.164, such as +4915112345678");
    let currency = check.currency(fields);
    let priced = check.items(fields, products, limits);
    if let (Some(expected), Some((_, total))) = (currency, &priced)
        && expected != total.currency
    {
        check.wrong::<()>("/currency", format!("is {expected}, but these products are sold in {}", total.currency));
    }
    match (customer_id, payment_method, priced) {
        (Some(customer_id), Some(payment_method), Some((items, total))) if check.errors.is_empty() => {
            Ok(Checked { customer_id, payment_method, contact: Contact { email, phone }, items, total })
        }
        _ => Err(check.errors),
    }
}

struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    fn wrong<T>(&mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Option<T> {
        self.errors.push(FieldError::new(pointer, detail));
        None
    }

    fn only_known(&mut self, fields: &Map<String, Value>, at: &str, known: &[&str]) {
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let shown: String = name.chars().take(64).collect();
            let pointer = format!("{at}/{}", shown.replace('~', "~0").replace('/', "~1"));
            self.wrong::<()>(pointer, format!("is not a field here; known are {}", known.join(", ")));
        }
    }

    fn required<'a>(&mut self, fields: &'a Map<String, Value>, at: &str, name: &str) -> Option<&'a Value> {
        let value = fields.get(name);
        if value.is_none() {
            self.wrong::<()>(format!("{at}/{name}"), "is required");
        }
        value
    }

    fn text<'a>(&mut self, value: &'a Value, pointer: &str) -> Option<&'a str> {
        match value.as_str() {
            Some(text) => Some(text),
            None => self.wrong(pointer, format!("must be a text, not {}", kind(value))),
        }
    }

    fn customer(&mut self, fields: &Map<String, Value>) -> Option<CustomerId> {
        let value = self.required(fields, "", "customer_id")?;
        let text = self.text(value, "/customer_id")?;
        match CustomerId::new(text) {
            Ok(id) => Some(id),
            Err(error) => self.wrong("/customer_id", format!("must be {}", error.rule)),
        }
    }

    fn payment_method(&mut self, fields: &Map<String, Value>) -> Option<String> {
        let value = self.required(fields, "", "payment_method")?;
        let text = self.text(value, "/payment_method")?;
        if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Some(text.to_owned());
        }
        self.wrong("/payment_method", "must be 1 to 128 visible ASCII characters without spaces")
    }

    /// `null` is the same as absent.
    fn optional(
        &mut self,
        fields: &Map<String, Value>,
        name: &str,
        is_right: fn(&str) -> bool,
        rule: &str,
    ) -> Option<String> {
        let value = fields.get(name).filter(|value| !value.is_null())?;
        let pointer = format!("/{name}");
        let text = self.text(value, &pointer)?;
        if is_right(text) { Some(text.to_owned()) } else { self.wrong(pointer, rule) }
    }

    fn currency(&mut self, fields: &Map<String, Value>) -> Option<Currency> {
        let value = fields.get("currency").filter(|value| !value.is_null())?;
        let text = self.text(value, "/currency")?;
        match text.parse() {
            Ok(currency) => Some(currency),
            Err(_) => self.wrong("/currency", "must be an ISO 4217 currency code in upper case, such as EUR"),
        }
    }

    fn items(
        &mut self,
        fields: &Map<String, Value>,
        products: &Products,
        limits: &Settings,
    ) -> Option<(Vec<PricedItem>, Money)> {
        let value = self.required(fields, "", "items")?;
        let Some(list) = value.as_array() else {
            return self.wrong("/items", format!("must be a list, not {}", kind(value)));
        };
        if list.is_empty() || list.len() > limits.max_items {
            return self.wrong("/items", format!("must hold 1 to {} items, not {}", limits.max_items, list.len()));
        }
        let mut first_at: HashMap<ProductId, usize> = HashMap::new();
        let mut priced = Vec::with_capacity(list.len());
        let mut total: Option<Money> = None;
        for (at, value) in list.iter().enumerate() {
            let Some((product_id, quantity)) = self.item(at, value, limits) else { continue };
            let pointer = format!("/items/{at}/product_id");
            if let Some(first) = first_at.get(&product_id) {
                self.wrong::<()>(
                    pointer,
                    format!("is the product of /items/{first} again; order it once, with the sum"),
                );
                continue;
            }
            let Some(product) = products.get(&product_id) else {
                let hint = if products.is_empty() { ": the catalog is empty" } else { "" };
                self.wrong::<()>(pointer, format!("{product_id} is not in the catalog{hint}"));
                continue;
            };
            first_at.insert(product_id.clone(), at);
            let price = product.unit_price;
            let so_far = total.unwrap_or(Money { minor: 0, currency: price.currency });
            match price.times(quantity).and_then(|sum| so_far.plus(sum)) {
                Ok(sum) => total = Some(sum),
                Err(MoneyError::MixedCurrencies(others, own)) => {
                    let detail =
                        format!("is sold in {own}, the products before it in {others}; an order has one currency");
                    self.wrong::<()>(pointer, detail);
                    continue;
                }
                Err(_) => return self.wrong("/items", too_much(limits, so_far.currency)),
            }
            priced.push(PricedItem { product_id, quantity, unit_price_minor: Some(price.minor) });
        }
        let total = total?;
        if total.minor > limits.max_total_minor {
            return self.wrong("/items", too_much(limits, total.currency));
        }
        if total.minor == 0 && self.errors.is_empty() {
            return self.wrong("/items", "come to a total of nothing, which cannot be charged");
        }
        Some((priced, total))
    }

    fn item(&mut self, at: usize, value: &Value, limits: &Settings) -> Option<(ProductId, u32)> {
        let here = format!("/items/{at}");
        let Some(fields) = value.as_object() else {
            return self.wrong(here, format!("must be an object, not {}", kind(value)));
        };
        self.only_known(fields, &here, &["product_id", "quantity"]);
        let product_id = self.product_id(fields, &here);
        let quantity = self.quantity(fields, &here, limits);
        Some((product_id?, quantity?))
    }

    fn product_id(&mut self, fields: &Map<String, Value>, here: &str) -> Option<ProductId> {
        let value = self.required(fields, here, "product_id")?;
        let pointer = format!("{here}/product_id");
        let text = self.text(value, &pointer)?;
        match ProductId::new(text) {
            Ok(id) => Some(id),
            Err(error) => self.wrong(pointer, format!("must be {}", error.rule)),
        }
    }

    fn quantity(&mut self, fields: &Map<String, Value>, here: &str, limits: &Settings) -> Option<u32> {
        let value = self.required(fields, here, "quantity")?;
        let most = u64::from(limits.max_quantity);
        match value.as_u64().filter(|quantity| (1..=most).contains(quantity)) {
            Some(quantity) => u32::try_from(quantity).ok(),
            None => self.wrong(format!("{here}/quantity"), format!("must be a whole number from 1 to {most}")),
        }
    }
}

fn too_much(limits: &Settings, currency: Currency) -> String {
    let most = Money { minor: limits.max_total_minor, currency };
    format!("come to more than the largest total allowed, {most}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What mail servers take without extensions (RFC 5321), without quoted local parts, which nobody has and which invite
/// trouble.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let local_is_right =
        local.len() <= 64 && local.split('.').all(|part| !part.is_empty() && part.bytes().all(is_atom));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 254 && local_is_right && domain.contains('.') && domain.split('.').all(is_label)
}

/// E.164: a plus, then 7 to 15 digits that do not begin with 0.
fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_is_what_mail_servers_take() {
        for right in ["ada@example.com", "a.b+c@x-y.example.co", "o'brien@example.com"] {
            assert!(is_email(right), "{right}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for wrong in [
            "",
            "ada",
            "ada@",
            "@x.com",
            "ada@localhost",
            "a b@x.com",
            "a@x..com",
            "a@-x.com",
            "a@x.com\r\nBcc: b@x.com",
            &long,
        ] {
            assert!(!is_email(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_phone_number_is_e164() {
        assert!(is_phone("+4915112345678"));
        for wrong in ["", "+", "4915112345678", "+0915112345678", "+49 151 1234567", "+123456", "+1234567890123456"] {
            assert!(!is_phone(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_same_request_has_the_same_hash_however_it_is_written() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{ "b": {"d":"x", "c":[1, 2]}, "a": 1 }"#).unwrap();
        assert_eq!(hash(&one), hash(&other));
        for different in [
            json!({"a": 1}),
            json!({"a": 1, "b": {"c": [2, 1], "d": "x"}}),
            json!({"a": "1", "b": {"c": [1, 2], "d": "x"}}),
        ] {
            assert_ne!(hash(&one), hash(&different));
        }
        assert_ne!(hash(&json!([["a"], []])), hash(&json!([["a", []]])));
        // Databases are full of them.
        let kept = "4a82bd7e2ae1af910d5f7272f49d3d412ce3f8a95899ee7752eefa72c4f08c62";
        assert_eq!(hash(&json!({ "b": [1, "ä\n", {}], "a": null })), kept);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let body = json!({
            "customer_id": "with space", "payment_method": 5, "items": [{ "product_id": "nope", "quantity": 1 }, { "quantity": 0 }],
            "email": "x", "phone": "1", "currency": "euro", "surprise": true
        });
        let errors = check(&body, &Products::new(), &Settings::default()).unwrap_err();
        let mut pointers: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(
            pointers,
            [
                "/currency",
                "/customer_id",
                "/email",
                "/items/0/product_id",
                "/items/1/product_id",
                "/items/1/quantity",
                "/payment_method",
                "/phone",
                "/surprise"
            ]
        );
    }
}
