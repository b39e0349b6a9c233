//! Conversions between types.

use super::{
    super::value::{Failure, Other, Text, Val},
    Row, operators, time,
};

pub(super) const ROWS: &[Row] = &[
    (&["int(int) int", "int(uint) int", "int(double) int", "int(string) int", "int(timestamp) int"], |_, a| {
        match &a[0] {
            Val::Int(number) => Ok(Val::Int(*number)),
            Val::Uint(number) => i64::try_from(*number).map(Val::Int).map_err(|_| operators::overflow("integer")),
            // Strictly between the limits, as 2^63 itself can't be told from 2^63 - 1.
            Val::Double(number) if number.abs() < 9_223_372_036_854_775_808.0 => Ok(Val::Int(*number as i64)),
            Val::Double(_) => Err(operators::overflow("integer")),
            Val::String(text) => text.parse().map(Val::Int).map_err(|_| conversion(text, "int")),
            Val::Timestamp(time) => Ok(Val::Int(time.as_second())),
            _ => Err(Failure::overload()),
        }
    }),
    (&["uint(uint) uint", "uint(int) uint", "uint(double) uint", "uint(string) uint"], |_, a| match &a[0] {
        Val::Uint(number) => Ok(Val::Uint(*number)),
        Val::Int(number) => u64::try_from(*number).map(Val::Uint).map_err(|_| operators::overflow("unsigned integer")),
        Val::Double(number) if *number >= 0.0 && *number < 18_446_744_073_709_551_616.0 => {
            Ok(Val::Uint(*number as u64))
        }
        Val::Double(_) => Err(operators::overflow("unsigned integer")),
        Val::String(text) => text.parse().map(Val::Uint).map_err(|_| conversion(text, "uint")),
        _ => Err(Failure::overload()),
    }),
    (&["double(double) double", "double(int) double", "double(uint) double", "double(string) double"], |_, a| match &a
        [0]
    {
        Val::Double(number) => Ok(Val::Double(*number)),
        Val::Int(number) => Ok(Val::Double(*number as f64)),
        Val::Uint(number) => Ok(Val::Double(*number as f64)),
        Val::String(text) => text.parse().map(Val::Double).map_err(|_| conversion(text, "double")),
        _ => Err(Failure::overload()),
    }),
    (&["bool(bool) bool", "bool(string) bool"], |_, a| match &a[0] {
        Val::Bool(flag) => Ok(Val::Bool(*flag)),
        Val::String(text) => match &**text {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            other => Err(conversion(other, "bool")),
        },
        _ => Err(Failure::overload()),
    }),
    (
        &[
            "string(string) string",
            "string(bool) string",
            "string(int) string",
            "string(uint) string",
            "string(double) string",
            "string(bytes) string",
            "string(timestamp) string",
            "string(duration) string",
            "string(ip) string",
            "string(cidr) string",
            ".string(ip) string",
            ".string(cidr) string",
        ],
        |meter, a| {
            meter.traverse(a[0].size())?;
            Ok(match &a[0] {
                Val::String(_) => a[0].clone(),
                Val::Bool(flag) => Val::text(flag.to_string()),
                Val::Int(number) => Val::text(number.to_string()),
                Val::Uint(number) => Val::text(number.to_string()),
                Val::Double(number) => Val::text(float(*number)),
                Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Val::text(text),
                    Err(_) => return Err(Failure::new("invalid UTF-8 in bytes, cannot convert to string")),
                },
                Val::Timestamp(at) => Val::text(time::write_timestamp(*at)),
                Val::Duration(nanos) => Val::text(time::write_duration(*nanos)),
                Val::Other(other) => match &**other {
                    Other::Ip(ip) => Val::text(ip.to_string()),
                    Other::Cidr(cidr) => Val::text(cidr.to_string()),
                    _ => return Err(Failure::overload()),
                },
                _ => return Err(Failure::overload()),
            })
        },
    ),
    (&["bytes(bytes) bytes", "bytes(string) bytes"], |meter, a| {
        meter.traverse(a[0].size())?;
        match &a[0] {
            Val::Bytes(_) => Ok(a[0].clone()),
            Val::String(text) => Ok(Val::Bytes(text.as_bytes().into())),
            _ => Err(Failure::overload()),
        }
    }),
    (&["dyn(A) dyn"], |_, a| Ok(a[0].clone())),
    (&["type(A) type"], |_, a| Ok(Val::Type(a[0].type_name()))),
];

fn conversion(text: &str, kind: &str) -> Failure {
    Failure::new(format!("type conversion error: cannot convert {text:?} to {kind}"))
}

/// A float as Go's shortest form writes it.
pub(super) fn float(number: f64) -> String {
    match number {
        n if n.is_nan() => "NaN".to_owned(),
        n if n.is_infinite() => if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        n if n != 0.0 && (n.abs() < 1e-4 || n.abs() >= 1e21) => {
            // Go gives an exponent a sign and two digits.
            let text = format!("{n:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        n => n.to_string(),
    }
}

/// A text that stands in the program.
pub(super) fn fixed<'a>(text: &'static str) -> Val<'a> {
    Val::String(Text::Borrowed(text))
}
