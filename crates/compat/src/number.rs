//! Numbers of JSON, compared exactly.

use std::cmp::Ordering;

use serde_json::{Number, Value};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Num {
    Integer(i128),
    /// With a fraction, or too large to be anything but approximate.
    Float(f64),
}

/// Doubles up to here are integers without doubt, and fit.
const LARGEST: f64 = 1e30;

impl Num {
    pub(crate) fn of(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Integer(integer.into());
        }
        if let Some(integer) = number.as_u64() {
            return Self::Integer(integer.into());
        }
        let float = number.as_f64().unwrap_or(f64::NAN);
        if float.fract() == 0.0 && float.abs() < LARGEST { Self::Integer(float as i128) } else { Self::Float(float) }
    }

    pub(crate) fn of_value(value: &Value) -> Option<Self> {
        value.as_number().map(Self::of)
    }

    pub(crate) fn is_integer(self) -> bool {
        match self {
            Self::Integer(_) => true,
            Self::Float(float) => float.is_finite() && float.fract() == 0.0,
        }
    }

    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Integer(a), Self::Float(b)) => against_float(a, b),
            (Self::Float(a), Self::Integer(b)) => against_float(b, a).map(Ordering::reverse),
        }
    }

    /// Whether every multiple of this is a multiple of `other`; `false` when that is not certain.
    pub(crate) fn is_multiple_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => b != 0 && a % b == 0,
            (Self::Float(a), Self::Float(b)) => a == b,
            _ => false,
        }
    }

    /// The least integer that is not less; itself when it is too large to tell.
    pub(crate) fn ceiling(self) -> Self {
        match self {
            Self::Float(float) if float.abs() < LARGEST => Self::Integer(float.ceil() as i128),
            other => other,
        }
    }

    pub(crate) fn floor(self) -> Self {
        match self {
            Self::Float(float) if float.abs() < LARGEST => Self::Integer(float.floor() as i128),
            other => other,
        }
    }
}

fn against_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= LARGEST * 2.0 {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = float.floor();
    Some(match integer.cmp(&(floor as i128)) {
        Ordering::Equal if float > floor => Ordering::Less,
        other => other,
    })
}

/// A count as keywords such as `minLength` have it.
pub(crate) fn count(value: &Value) -> Option<u64> {
    match Num::of_value(value)? {
        Num::Integer(integer) => u64::try_from(integer).ok(),
        Num::Float(_) => None,
    }
}

/// Equality as JSON Schema has it: 1 is 1.0.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Num::of(a).compare(Num::of(b)) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_exactly_beyond_what_a_double_can_hold() {
        let compare = |a: Value, b: Value| Num::of_value(&a).unwrap().compare(Num::of_value(&b).unwrap()).unwrap();
        assert_eq!(compare(json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)), Ordering::Greater);
        assert_eq!(compare(json!(u64::MAX), json!(i64::MAX)), Ordering::Greater);
        assert_eq!(compare(json!(1), json!(1.0)), Ordering::Equal);
        assert_eq!(compare(json!(1), json!(1.5)), Ordering::Less);
        assert_eq!(compare(json!(-1), json!(-1.5)), Ordering::Greater);
        assert_eq!(compare(json!(1e300), json!(u64::MAX)), Ordering::Greater);
        assert_eq!(compare(json!(-1e300), json!(i64::MIN)), Ordering::Less);
        assert!(equal(&json!({ "a": [1, 2.0] }), &json!({ "a": [1.0, 2] })));
        assert!(!equal(&json!([1]), &json!([true])));
    }
}
