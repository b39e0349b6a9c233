//! Resource quantities: `500m`, `1Gi`, `2e3`, in exact arithmetic.

use std::{
    cmp::Ordering,
    fmt,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How a quantity is written; sums keep that of their left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QuantityFormat {
    /// Powers of 1000: `n u m "" k M G T P E`.
    #[default]
    DecimalSi,
    /// Powers of 1024: `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// An amount of a resource, kept exactly as a whole number of billionths
/// (apimachinery's `api/resource.Quantity`).
///
/// As in Kubernetes, what is finer than a billionth is rounded away from zero, and amounts end at ±(2^63-1).
/// Two quantities are equal when their amounts are, however they are written.
///
/// ```
/// use rk_api::Quantity;
///
/// let memory: Quantity = "1024Mi".parse()?;
/// assert_eq!(memory.to_string(), "1Gi");
/// let cpu: Quantity = "0.5".parse()?;
/// assert_eq!((cpu.to_string().as_str(), cpu.milli_value(), cpu.value()), ("500m", 500, 1));
/// assert!(cpu + "600m".parse()? > Quantity::from_value(1));
/// # Ok::<(), rk_api::QuantityError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: QuantityFormat,
}

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Such as `5Mb`.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANOS: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANOS;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: QuantityFormat::DecimalSi };

    /// A whole amount, written in powers of 1000.
    pub fn from_value(value: i64) -> Self {
        Self::from_nanos(i128::from(value) * NANOS, QuantityFormat::DecimalSi)
    }

    /// A whole amount, written in powers of 1024, as memory is.
    pub fn from_bytes(bytes: i64) -> Self {
        Self::from_nanos(i128::from(bytes) * NANOS, QuantityFormat::BinarySi)
    }

    /// An amount in thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Self::from_nanos(i128::from(milli) * 1_000_000, QuantityFormat::DecimalSi)
    }

    fn from_nanos(nanos: i128, format: QuantityFormat) -> Self {
        Self { nanos: nanos.clamp(-MAX, MAX), format }
    }

    /// The amount, rounded away from zero to a whole number.
    pub fn value(&self) -> i64 {
        saturate(divide_up(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        saturate(divide_up(self.nanos, 1_000_000))
    }

    /// The amount as a fraction, for scores and ratios; it may lose precision.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Whether the amount is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// How it is written.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero.
fn divide_up(value: i128, by: i128) -> i128 {
    value / by + if value % by == 0 { 0 } else { value.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (format, base, exponent) = parse_suffix(suffix)?;
        let nanos = match base {
            10 => scale_decimal(whole, fraction, exponent),
            _ => scale_binary(whole, fraction, exponent),
        };
        Ok(Self::from_nanos(if negative { -nanos } else { nanos }, format))
    }
}

/// The format, the base (2 or 10) and the exponent that a suffix means.
fn parse_suffix(suffix: &str) -> Result<(QuantityFormat, u32, i32), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((QuantityFormat::DecimalSi, 10, *exponent));
    }
    if let Some(power) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((QuantityFormat::BinarySi, 2, 10 * power as i32));
    }
    if let Some(digits) = suffix.strip_prefix(['e', 'E']) {
        let exponent: i64 = digits.parse().map_err(|_| QuantityError::Suffix)?;
        return Ok((QuantityFormat::DecimalExponent, 10, exponent.clamp(-1000, 1000) as i32));
    }
    let legal = suffix.bytes().all(|b| b"eEinumkKMGTP+-0123456789".contains(&b));
    Err(if legal { QuantityError::Suffix } else { QuantityError::Format })
}

/// Billionths of a decimal number times 10^exponent, rounded up, at most [`MAX`].
fn scale_decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let keep = whole.len() as i64 + i64::from(exponent) + 9;
    let digits = whole.bytes().chain(fraction.bytes());
    let (mut nanos, mut inexact) = (0_i128, false);
    for (at, digit) in digits.enumerate() {
        if (at as i64) < keep {
            nanos = (nanos * 10 + i128::from(digit - b'0')).min(MAX);
        } else {
            inexact |= digit != b'0';
        }
    }
    let missing = keep - (whole.len() + fraction.len()) as i64;
    for _ in 0..missing.max(0) {
        if nanos == 0 || nanos == MAX {
            break;
        }
        nanos = (nanos * 10).min(MAX);
    }
    (nanos + i128::from(inexact)).min(MAX)
}

/// Billionths of a decimal number times 2^exponent, rounded up, at most [`MAX`].
///
/// A fraction counts to its 18th digit; what follows only rounds up, which is finer than a billionth of an `Ei`
/// can be told from.
fn scale_binary(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let factor = 1_i128 << exponent;
    let units = scale_decimal(whole, "", 0) / NANOS;
    let high = units.saturating_mul(factor).saturating_mul(NANOS).min(MAX);
    let (mut numerator, mut denominator) = (0_i128, 1_i128);
    for digit in fraction.bytes().take(18) {
        numerator = numerator * 10 + i128::from(digit - b'0');
        denominator *= 10;
    }
    let rest = fraction.bytes().skip(18).any(|digit| digit != b'0');
    // numerator * factor < 10^18 * 2^60 < 2^120; the billion is multiplied in after the first division.
    let product = numerator * factor;
    let (units, left) = (product / denominator, product % denominator);
    let low = units * NANOS + divide_up(left * NANOS, denominator) + i128::from(rest);
    high.saturating_add(low).min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == QuantityFormat::BinarySi && self.is_integer() && !small {
            let (mut mantissa, mut power) = (self.nanos / NANOS, 0);
            while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                (mantissa, power) = (mantissa / 1024, power + 1);
            }
            return write!(f, "{mantissa}{}", BINARY[power]);
        }
        let (mut mantissa, mut step) = (self.nanos, 0);
        while mantissa % 1000 == 0 && step + 1 < DECIMAL.len() {
            (mantissa, step) = (mantissa / 1000, step + 1);
        }
        let (suffix, exponent) = DECIMAL[step];
        match self.format {
            QuantityFormat::DecimalExponent if exponent != 0 => write!(f, "{mantissa}e{exponent}"),
            _ => write!(f, "{mantissa}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// A zero on the left takes the format of the right, as in Kubernetes.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::from_nanos(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Add::add)
    }
}

impl TryFrom<&Text> for Quantity {
    type Error = QuantityError;

    fn try_from(text: &Text) -> Result<Self, QuantityError> {
        text.0.parse()
    }
}

impl From<Quantity> for Text {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a string; or a number, which is read by its decimal text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            other => return Err(de::Error::custom(format_args!("{other} is not a quantity"))),
        };
        text.trim().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_canonical_form_is_that_of_kubernetes() {
        for (given, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1", "1"),
            ("1.0", "1"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1.5Ki", "1536"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-3", "12e-3"),
            ("1e0", "1"),
            ("1E", "1E"),
            ("1Ei", "1Ei"),
            ("100E", "9223372036854775807"),
            ("1e999999999", "9223372036854775807"),
            ("-1e999999999", "-9223372036854775807"),
            ("9Ei", "9223372036854775807"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("-0.5", "-500m"),
            ("+3", "3"),
            (".5", "500m"),
            ("5.", "5"),
            ("0001", "1"),
            ("1u", "1u"),
            ("64000000k", "64G"),
            ("131072Ki", "128Mi"),
        ] {
            assert_eq!(given.parse::<Quantity>().unwrap().to_string(), canonical, "{given}");
        }
    }

    #[test]
    fn wrong_quantities_are_refused() {
        for text in ["", "-", ".", "1.2.3", "abc", "1 Gi", "1Gib", "Gi", "--1", "é"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        for text in ["1Mm", "1e", "1ee3", "1ki", "1K"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text}");
        }
    }

    #[test]
    fn whole_values_round_up() {
        let quantity: Quantity = "1100500u".parse().unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1101));
        assert_eq!("-1500m".parse::<Quantity>().unwrap().value(), -2);
    }

    #[test]
    fn sums_keep_the_format_of_the_left() {
        let memory: Quantity = ["1Gi", "512Mi"].iter().map(|text| text.parse::<Quantity>().unwrap()).sum();
        assert_eq!(memory.to_string(), "1536Mi");
        assert_eq!((memory - Quantity::from_bytes(1 << 29)).to_string(), "1Gi");
    }

    #[test]
    fn numbers_in_json_are_read() {
        assert_eq!(serde_json::from_str::<Quantity>("1.5").unwrap().milli_value(), 1500);
        assert_eq!(serde_json::to_string(&Quantity::from_milli(100)).unwrap(), "\"100m\"");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[+-]?[0-9]{0,5}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn writing_and_reading_keeps_the_amount(nanos in -MAX..MAX, kind in 0..3) {
            let format = [QuantityFormat::DecimalSi, QuantityFormat::BinarySi, QuantityFormat::DecimalExponent][kind as usize];
            let quantity = Quantity::from_nanos(nanos, format);
            let again: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(quantity, again);
        }
    }
}
