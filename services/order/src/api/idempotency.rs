use axum::http::HeaderMap;
use millrace::problem::Problem;

/// The request header, as in the IETF draft "The Idempotency-Key HTTP Header Field".
pub(crate) const HEADER: &str = "Idempotency-Key";
/// On an answer that was given before.
pub(crate) const REPLAYED: &str = "idempotent-replayed";
const LONGEST: usize = 255;

/// The key of a request, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::invalid_parameter(HEADER, "is given twice; a request has one key"));
    }
    match first.to_str() {
        Ok(key) if (1..=LONGEST).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Problem::invalid_parameter(
            HEADER,
            format!("must be 1 to {LONGEST} visible ASCII characters without spaces"),
        )),
    }
}
