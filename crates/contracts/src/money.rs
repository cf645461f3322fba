//! Money in integer minor units (ISO 4217), and the exact conversion from and to decimals that v1 of
//! `orders.created` needs.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest amount, in minor units: beyond 2^53 a JSON reader that knows only doubles would round it.
pub const MAX_MINOR: i64 = (1 << 53) - 1;

/// Active ISO 4217 codes of currencies people are paid in, in alphabetical order.
const CODES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD \
CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL \
HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA \
MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB \
RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU \
UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// Currencies without a minor unit, and with thousandths; all others have hundredths.
const EXPONENT_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
const EXPONENT_3: &str = "BHD IQD JOD KWD LYD OMR TND";

/// An ISO 4217 currency code in upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Z]{3}$"), description = "ISO 4217 currency code")]
#[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
pub struct Currency([u8; 3]);

impl Currency {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Digits after the decimal point.
    pub fn exponent(self) -> u32 {
        match self.as_str() {
            code if EXPONENT_0.contains(code) => 0,
            code if EXPONENT_3.contains(code) => 3,
            _ => 2,
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if is_in_use([a, b, c]) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::UnknownCurrency(text.chars().take(16).collect())),
        }
    }
}

fn is_in_use(code: [u8; 3]) -> bool {
    // Four bytes a code, with the space behind it, which the last one does not have.
    let (codes, last) = CODES.as_bytes().as_chunks::<4>();
    let [a, b, c] = code;
    codes.binary_search(&[a, b, c, b' ']).is_ok() || last == code
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Money {
    /// In minor units: 1999 in EUR is 19.99 EUR.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 1999)]
    pub minor: i64,
    /// The currency, which also says how many minor units make a major one.
    pub currency: Currency,
}

/// Why an amount cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("{0:?} is not an ISO 4217 currency code such as EUR or USD, in upper case")]
    UnknownCurrency(String),
    #[error("amounts in {0} and {1} cannot be added")]
    MixedCurrencies(Currency, Currency),
    #[error("the amount is larger than {MAX_MINOR} minor units")]
    TooLarge,
    #[error("{amount} has more digits after the decimal point than {currency} has ({digits})")]
    TooFine { amount: String, currency: Currency, digits: u32 },
    #[error("{0} is not a decimal amount of zero or more with at most 15 digits")]
    NotAnAmount(String),
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if !(0..=MAX_MINOR).contains(&minor) {
            return Err(MoneyError::TooLarge);
        }
        Ok(Self { minor, currency })
    }

    pub fn times(self, quantity: u32) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(i64::from(quantity)).ok_or(MoneyError::TooLarge)?;
        Self::new(minor, self.currency)
    }

    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::MixedCurrencies(self.currency, other.currency));
        }
        Self::new(self.minor.checked_add(other.minor).ok_or(MoneyError::TooLarge)?, self.currency)
    }

    /// From a JSON number. A double prints as the shortest text that reads back as itself, which is the text the
    /// publisher wrote as long as it had at most 15 significant digits; so no cent is lost to binary fractions.
    pub fn from_decimal(amount: f64, currency: Currency) -> Result<Self, MoneyError> {
        let text = format!("{amount}");
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if !amount.is_finite() || amount < 0.0 || digits > 16 {
            return Err(MoneyError::NotAnAmount(text));
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let exponent = currency.exponent();
        let width = exponent as usize;
        if fraction.len() > width {
            return Err(MoneyError::TooFine { amount: text.clone(), currency, digits: exponent });
        }
        let minor = format!("{whole}{fraction:0<width$}").parse().map_err(|_| MoneyError::NotAnAmount(text.clone()))?;
        Self::new(minor, currency)
    }

    /// To a JSON number that prints as the exact decimal. Exact up to 15 significant digits.
    pub fn to_decimal(self) -> f64 {
        self.decimal_text().parse().unwrap_or(f64::NAN)
    }

    /// `19.99`, without the currency.
    pub fn decimal_text(self) -> String {
        let exponent = self.currency.exponent();
        if exponent == 0 {
            return self.minor.to_string();
        }
        let unit = 10_i64.pow(exponent);
        format!("{}.{:0width$}", self.minor / unit, self.minor % unit, width = exponent as usize)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal_text(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn eur() -> Currency {
        "EUR".parse().unwrap()
    }

    proptest! {
        #[test]
        fn an_amount_survives_the_trip_through_a_decimal(minor in 0..99_999_999_999_999_i64, code in prop_oneof!["EUR", "JPY", "KWD"]) {
            let money = Money::new(minor, code.parse().unwrap()).unwrap();
            let json = serde_json::to_string(&money.to_decimal()).unwrap();
            let back: f64 = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(Money::from_decimal(back, money.currency).unwrap(), money);
        }
    }

    #[test]
    fn each_code_in_use_is_a_currency_and_nothing_else_is() {
        for code in CODES.split(' ') {
            assert_eq!(code.parse::<Currency>().unwrap().as_str(), code);
        }
        for other in ["", "EU", "eur", "EURO", "AAA", "ZZZ", "N N", "D A"] {
            assert!(other.parse::<Currency>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_decimal_that_does_not_fit_the_currency_is_refused() {
        assert!(matches!(Money::from_decimal(10.999, eur()), Err(MoneyError::TooFine { .. })));
        assert!(matches!(Money::from_decimal(1.5, "JPY".parse().unwrap()), Err(MoneyError::TooFine { .. })));
        assert!(Money::from_decimal(-1.0, eur()).is_err());
        assert!(Money::from_decimal(f64::NAN, eur()).is_err());
        assert!(Money::from_decimal(1e300, eur()).is_err());
        assert_eq!(Money::from_decimal(149.99, eur()).unwrap().minor, 14_999);
        assert_eq!(Money::from_decimal(0.1, eur()).unwrap().minor, 10);
    }

    #[test]
    fn money_never_overflows_and_never_mixes_currencies() {
        let most = Money::new(MAX_MINOR, eur()).unwrap();
        assert_eq!(most.times(2), Err(MoneyError::TooLarge));
        assert_eq!(most.times(u32::MAX), Err(MoneyError::TooLarge));
        assert_eq!(most.plus(Money::new(1, eur()).unwrap()), Err(MoneyError::TooLarge));
        assert!(matches!(
            most.plus(Money::new(1, "USD".parse().unwrap()).unwrap()),
            Err(MoneyError::MixedCurrencies(..))
        ));
    }

    #[test]
    fn only_real_currency_codes_are_taken() {
        for wrong in ["eur", "EU", "XXX", "EURO", "", "É1"] {
            assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
        }
    }
}
