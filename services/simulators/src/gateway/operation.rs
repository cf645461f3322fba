//! From an HTTP request to an operation with checked parameters.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, StatusCode, header};

use super::answer::Refusal;
use super::intent::NewIntent;
use super::tokens;
use crate::http::unix_ms;

/// Form or query parameters; of a repeated one, the last counts.
pub(super) type Params = BTreeMap<String, String>;

/// Stripe's own limit: eight digits of minor units.
const LARGEST_AMOUNT: i64 = 99_999_999;
const LARGEST_PAGE: usize = 100;
const USUAL_PAGE: usize = 10;

/// What a client may ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    Create,
    List,
    Search,
    Retrieve(&'a str),
    Capture(&'a str),
    Cancel(&'a str),
    Refund,
}

impl<'a> Operation<'a> {
    pub(super) fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let segments: Vec<_> = path.trim_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            (&Method::POST, ["v1", "payment_intents"]) => Ok(Self::Create),
            (&Method::GET, ["v1", "payment_intents"]) => Ok(Self::List),
            (&Method::GET, ["v1", "payment_intents", "search"]) => Ok(Self::Search),
            (&Method::GET, ["v1", "payment_intents", id]) => Ok(Self::Retrieve(id)),
            (&Method::POST, ["v1", "payment_intents", id, "capture"]) => Ok(Self::Capture(id)),
            (&Method::POST, ["v1", "payment_intents", id, "cancel"]) => Ok(Self::Cancel(id)),
            (&Method::POST, ["v1", "refunds"]) => Ok(Self::Refund),
            _ => {
                Err(Refusal::invalid(format!("Unrecognized request URL ({method}: {path})."))
                    .status(StatusCode::NOT_FOUND))
            }
        }
    }
}

/// Any test key will do; a live one must never be sent to a simulator.
pub(super) fn authenticate(headers: &HeaderMap) -> Result<(), Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let problem = match header.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(key) if key.starts_with("sk_test_") => return Ok(()),
        Some(_) => "Invalid API Key provided: the simulator takes any key that starts with sk_test_, and no other.",
        None => "You did not provide an API key. Send it as a header: Authorization: Bearer sk_test_...",
    };
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_request_error", problem))
}

/// Checks the parameters of a new payment.
pub(super) fn new_intent(params: &Params) -> Result<NewIntent, Refusal> {
    if params.get("confirm").map(String::as_str) != Some("true") {
        return Err(Refusal::invalid("The simulator only does payments with confirm=true.").param("confirm"));
    }
    let manual_capture = match params.get("capture_method").map(String::as_str) {
        Some("manual") => true,
        None | Some("automatic" | "automatic_async") => false,
        Some(other) => {
            return Err(Refusal::invalid(format!("Invalid capture_method: {other}.")).param("capture_method"));
        }
    };
    let amount = amount(params, "amount")?.ok_or_else(|| Refusal::missing_param("amount"))?;
    let currency = required(params, "currency")?.to_ascii_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(Refusal::invalid(format!("Invalid currency: {currency}.")).param("currency"));
    }
    let method = required(params, "payment_method")?;
    let token = tokens::find(method)
        .ok_or_else(|| Refusal::no_such("PaymentMethod", method, "payment_method").status(StatusCode::BAD_REQUEST))?;
    Ok(NewIntent { amount, currency, token, manual_capture, metadata: metadata(params), created: unix_ms() / 1_000 })
}

/// A positive number of minor units, if the parameter is there.
pub(super) fn amount(params: &Params, name: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let refuse =
        |code, problem| Err(Refusal::invalid(format!("Invalid {name}: {text} {problem}.")).code(code).param(name));
    match text.parse::<i64>() {
        Err(_) => refuse("parameter_invalid_integer", "is not an integer of minor units"),
        Ok(..1) => refuse("parameter_invalid_integer", "is less than 1"),
        Ok(amount) if amount > LARGEST_AMOUNT => refuse("amount_too_large", "has more than eight digits"),
        Ok(amount) => Ok(Some(amount)),
    }
}

pub(super) fn required<'a>(params: &'a Params, name: &'static str) -> Result<&'a str, Refusal> {
    params.get(name).filter(|value| !value.is_empty()).map(String::as_str).ok_or_else(|| Refusal::missing_param(name))
}

/// How many intents a page of the listing holds.
pub(super) fn page_size(params: &Params) -> Result<usize, Refusal> {
    let Some(text) = params.get("limit") else { return Ok(USUAL_PAGE) };
    match text.parse() {
        Ok(limit @ 1..=LARGEST_PAGE) => Ok(limit),
        _ => {
            Err(Refusal::invalid(format!("Invalid limit: {text} is not between 1 and {LARGEST_PAGE}.")).param("limit"))
        }
    }
}

/// Whether the client wants to see the charge and not its id alone; in a list, of each payment.
pub(super) fn expands_charge(params: &Params) -> bool {
    ["expand[]", "expand[0]"]
        .iter()
        .filter_map(|name| params.get(*name))
        .any(|value| value == "latest_charge" || value == "data.latest_charge")
}

/// The order that `query=metadata["order_id"]:"..."` asks for; the simulator's search knows nothing else.
pub(super) fn searched_order(params: &Params) -> Result<String, Refusal> {
    let query = required(params, "query")?;
    let order = query.replace(['"', '\''], "");
    match order.strip_prefix("metadata[order_id]:") {
        Some(order) if !order.is_empty() => Ok(order.to_owned()),
        _ => Err(Refusal::invalid(format!(
            "The simulator searches for metadata[\"order_id\"]:\"...\" only, not for {query}."
        ))
        .param("query")),
    }
}

/// `metadata[order_id]=..` becomes `order_id`.
fn metadata(params: &Params) -> BTreeMap<String, String> {
    let named = |(name, value): (&String, &String)| {
        let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
        Some((name.to_owned(), value.clone()))
    };
    params.iter().filter_map(named).collect()
}
