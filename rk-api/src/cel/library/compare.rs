//! Equality, order and the text of values.

use std::cmp::Ordering;

use super::super::{
    eval::Meter,
    types::ListType,
    value::{Failure, List, Map, Other, Val},
};

/// Whether two values are the same. Numbers of different types are by what they count; lists that Kubernetes keeps as
/// sets or maps are whatever the order.
pub(in super::super) fn equal(meter: &mut Meter<'_>, a: &Val<'_>, b: &Val<'_>) -> Result<bool, Failure> {
    Ok(match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::String(a), Val::String(b)) => {
            meter.traverse(a.len().min(b.len()))?;
            **a == **b
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            meter.traverse(a.len().min(b.len()))?;
            a == b
        }
        (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::Type(a), Val::Type(b)) => **a == **b,
        (Val::List(a), Val::List(b)) => a.len() == b.len() && lists(meter, a, b)?,
        (Val::Map(a), Val::Map(b)) => a.len() == b.len() && maps(meter, a, b)?,
        (Val::Optional(None), Val::Optional(None)) => true,
        (Val::Optional(Some(a)), Val::Optional(Some(b))) => equal(meter, a, b)?,
        (Val::Other(a), Val::Other(b)) => match (&**a, &**b) {
            (Other::Quantity(a), Other::Quantity(b)) => a == b,
            (Other::Url(a), Other::Url(b)) => a == b,
            (Other::Ip(a), Other::Ip(b)) => a == b,
            (Other::Cidr(a), Other::Cidr(b)) => a == b,
            (Other::Semver(a), Other::Semver(b)) => a == b,
            (Other::Format(a), Other::Format(b)) => std::ptr::eq(*a, *b),
            _ => false,
        },
        (a, b) => numbers(a, b) == Some(Ordering::Equal),
    })
}

fn lists(meter: &mut Meter<'_>, a: &List<'_>, b: &List<'_>) -> Result<bool, Failure> {
    let kind = |list: &List<'_>| match list {
        List::Json(_, of) => of.kind != ListType::Atomic,
        List::Made(_) => false,
    };
    if kind(a) || kind(b) {
        for item in a.values() {
            if !contains(meter, b, &item?)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for (a, b) in a.values().zip(b.values()) {
        meter.charge(1)?;
        if !equal(meter, &a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps(meter: &mut Meter<'_>, a: &Map<'_>, b: &Map<'_>) -> Result<bool, Failure> {
    for key in a.keys() {
        meter.charge(1)?;
        let same = match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => equal(meter, &a?, &b?)?,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a list holds a value.
pub(super) fn contains(meter: &mut Meter<'_>, list: &List<'_>, value: &Val<'_>) -> Result<bool, Failure> {
    for item in list.values() {
        meter.charge(1)?;
        if equal(meter, &item?, value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The order of two numbers of any types; `None` if one is not a number, or none at all.
fn numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    let whole = |value: &Val<'_>| match value {
        Val::Int(number) => Some(i128::from(*number)),
        Val::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    // A float against a whole number: by the whole part first, which is exact in 128 bits.
    let mixed = |float: f64, number: i128| {
        if float.is_nan() {
            None
        } else if float.abs() >= 1e30 {
            Some(if float > 0.0 { Ordering::Greater } else { Ordering::Less })
        } else {
            let by_whole = (float.floor() as i128).cmp(&number);
            Some(if by_whole == Ordering::Equal && float.fract() != 0.0 { Ordering::Greater } else { by_whole })
        }
    };
    match (a, b) {
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Double(a), b) => mixed(*a, whole(b)?),
        (a, Val::Double(b)) => mixed(*b, whole(a)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

/// The order of two values; `None` where one is not a number.
///
/// # Errors
/// They have no order.
pub(super) fn order(meter: &mut Meter<'_>, a: &Val<'_>, b: &Val<'_>) -> Result<Option<Ordering>, Failure> {
    Ok(match (a, b) {
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        (Val::String(a), Val::String(b)) => {
            meter.traverse(a.len().min(b.len()))?;
            Some((**a).cmp(&**b))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            meter.traverse(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
        (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
        (Val::Double(a), b) if a.is_nan() && numbers(&Val::Int(0), b).is_some() => None,
        (a, Val::Double(b)) if b.is_nan() && numbers(&Val::Int(0), a).is_some() => None,
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (a, b) => Some(numbers(a, b).ok_or_else(Failure::overload)?),
    })
}

/// A value in an error.
pub(in super::super) fn show(value: &Val<'_>) -> String {
    match value {
        Val::String(text) => text.to_string(),
        other => other.to_json().map(|json| json.to_string()).unwrap_or_else(|_| other.type_name().to_string()),
    }
}
