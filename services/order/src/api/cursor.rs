//! The place in a list, as a text whose content is nobody's business.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::{OrderId, Timestamp};
use uuid::Uuid;

use crate::store::Position;

/// Eight bytes of time, sixteen of id.
const LENGTH: usize = 24;

pub(crate) fn encode(position: Position) -> String {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&position.accepted_at.unix_ms().to_be_bytes());
    bytes[8..].copy_from_slice(position.order_id.0.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Position> {
    let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (time, id) = bytes.split_at(8);
    Some(Position {
        accepted_at: Timestamp::from_unix_ms(i64::from_be_bytes(time.try_into().ok()?)),
        order_id: OrderId(Uuid::from_slice(id).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_anything_else_to_none() {
        let place = Position {
            accepted_at: Timestamp::from_unix_ms(1_700_000_000_123),
            order_id: OrderId(Uuid::from_u128(42)),
        };
        assert_eq!(decode(&encode(place)), Some(place));
        let real = encode(place);
        for wrong in ["", "x", "!!!", &real[1..], &format!("{real}A"), "AAAA"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
