//! CloudEvents attribute values as header values: percent-encoded (CloudEvents NATS binding, 3.1.3.2).

use std::borrow::Cow;

/// What a header may not carry as it is: spaces, double quotes, the percent sign, and all but printable ASCII.
fn must_be_encoded(c: char) -> bool {
    !c.is_ascii_graphic() || matches!(c, '"' | '%')
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%')
}

/// The header value of an attribute. What is not printable would end the header or be lost on the way.
pub(crate) fn encode(value: String) -> String {
    if value.bytes().all(is_plain) {
        return value;
    }
    let mut encoded = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if must_be_encoded(c) {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

/// The attribute of a header value, decoded once. Publishers of earlier versions of the binding quote instead. A percent
/// sign that begins no escape stays what it is. `None` when what was encoded is not UTF-8.
pub(crate) fn decode(value: &str) -> Option<Cow<'_, str>> {
    let value = unquote(value);
    if !value.as_bytes().contains(&b'%') {
        return Some(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = digits.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A quoted string (RFC 7230, 3.2.6) without its quotes and backslashes; anything else as it is.
fn unquote(value: &str) -> Cow<'_, str> {
    let Some(inside) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.into() };
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_travel_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀".into()), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("a\r\nNats-Msg-Id: b".into()), "a%0D%0ANats-Msg-Id:%20b");
        assert_eq!(decode("Euro%20%e2%82%ac").as_deref(), Some("Euro €"));
        assert_eq!(decode("%41 100% %zz").as_deref(), Some("A 100% %zz"));
        assert_eq!(decode(r#""a \"b\" \\ %20""#).as_deref(), Some(r#"a "b" \  "#));
        assert_eq!(decode("%C0%A0"), None, "an overlong space is not UTF-8");
    }

    proptest! {
        #[test]
        fn a_value_arrives_as_it_left(value in "\\PC{0,40}") {
            let sent = encode(value.clone());
            prop_assert!(sent.bytes().all(|b| b.is_ascii_graphic()), "{sent}");
            prop_assert_eq!(decode(&sent), Some(Cow::Owned(value)));
        }
    }
}
