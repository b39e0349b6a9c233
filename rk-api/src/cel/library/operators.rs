//! Operators, and `size`.

use std::{cmp::Ordering, sync::Arc};

use super::{
    super::{
        eval::Meter,
        types::ListType,
        value::{Evaluated, Failure, List, Val},
    },
    Row, compare, time,
};

pub(super) const ROWS: &[Row] = &[
    (&["_==_(A, A) bool"], |meter, a| compare::equal(meter, &a[0], &a[1]).map(Val::Bool)),
    (&["_!=_(A, A) bool"], |meter, a| compare::equal(meter, &a[0], &a[1]).map(|same| Val::Bool(!same))),
    (&["!_(bool) bool"], |_, a| match &a[0] {
        Val::Bool(flag) => Ok(Val::Bool(!flag)),
        _ => Err(Failure::overload()),
    }),
    (ORDERED[0], |meter, a| ordered(meter, a, |order| order == Ordering::Less)),
    (ORDERED[1], |meter, a| ordered(meter, a, |order| order != Ordering::Greater)),
    (ORDERED[2], |meter, a| ordered(meter, a, |order| order == Ordering::Greater)),
    (ORDERED[3], |meter, a| ordered(meter, a, |order| order != Ordering::Less)),
    (
        &[
            "_+_(int, int) int",
            "_+_(uint, uint) uint",
            "_+_(double, double) double",
            "_+_(string, string) string",
            "_+_(bytes, bytes) bytes",
            "_+_(list<A>, list<A>) list<A>",
            "_+_(duration, duration) duration",
            "_+_(timestamp, duration) timestamp",
            "_+_(duration, timestamp) timestamp",
        ],
        add,
    ),
    (
        &[
            "_-_(int, int) int",
            "_-_(uint, uint) uint",
            "_-_(double, double) double",
            "_-_(duration, duration) duration",
            "_-_(timestamp, duration) timestamp",
            "_-_(timestamp, timestamp) duration",
        ],
        subtract,
    ),
    (&["_*_(int, int) int", "_*_(uint, uint) uint", "_*_(double, double) double"], |_, a| match (&a[0], &a[1]) {
        (Val::Int(a), Val::Int(b)) => a.checked_mul(*b).map(Val::Int).ok_or_else(|| overflow("integer")),
        (Val::Uint(a), Val::Uint(b)) => a.checked_mul(*b).map(Val::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        _ => Err(Failure::overload()),
    }),
    (&["_/_(int, int) int", "_/_(uint, uint) uint", "_/_(double, double) double"], |_, a| match (&a[0], &a[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(Failure::new("division by zero")),
        (Val::Int(a), Val::Int(b)) => a.checked_div(*b).map(Val::Int).ok_or_else(|| overflow("integer")),
        (Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a / b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        _ => Err(Failure::overload()),
    }),
    (&["_%_(int, int) int", "_%_(uint, uint) uint"], |_, a| match (&a[0], &a[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(Failure::new("modulus by zero")),
        (Val::Int(a), Val::Int(b)) => a.checked_rem(*b).map(Val::Int).ok_or_else(|| overflow("integer")),
        (Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a % b)),
        _ => Err(Failure::overload()),
    }),
    (&["-_(int) int", "-_(double) double"], |_, a| match &a[0] {
        Val::Int(number) => number.checked_neg().map(Val::Int).ok_or_else(|| overflow("integer")),
        Val::Double(number) => Ok(Val::Double(-number)),
        _ => Err(Failure::overload()),
    }),
    (&["@in(A, list<A>) bool", "@in(A, map<A, B>) bool"], |meter, a| match &a[1] {
        Val::List(list) => compare::contains(meter, list, &a[0]).map(Val::Bool),
        Val::Map(map) => Ok(Val::Bool(map.has(&a[0]))),
        _ => Err(Failure::overload()),
    }),
    (
        &[
            "size(string) int",
            "size(bytes) int",
            "size(list<A>) int",
            "size(map<A, B>) int",
            ".size(string) int",
            ".size(bytes) int",
            ".size(list<A>) int",
            ".size(map<A, B>) int",
        ],
        |meter, a| match &a[0] {
            Val::String(text) => {
                meter.traverse(text.len())?;
                Ok(Val::Int(text.chars().count() as i64))
            }
            other => Ok(Val::Int(other.size() as i64)),
        },
    ),
];

macro_rules! order {
    ($operator:literal) => {
        &[
            concat!($operator, "(bool, bool) bool"),
            concat!($operator, "(int, int) bool"),
            concat!($operator, "(uint, uint) bool"),
            concat!($operator, "(double, double) bool"),
            concat!($operator, "(string, string) bool"),
            concat!($operator, "(bytes, bytes) bool"),
            concat!($operator, "(timestamp, timestamp) bool"),
            concat!($operator, "(duration, duration) bool"),
            concat!($operator, "(int, double) bool"),
            concat!($operator, "(double, int) bool"),
            concat!($operator, "(int, uint) bool"),
            concat!($operator, "(uint, int) bool"),
            concat!($operator, "(uint, double) bool"),
            concat!($operator, "(double, uint) bool"),
        ]
    };
}

const ORDERED: [&[&str]; 4] = [order!("_<_"), order!("_<=_"), order!("_>_"), order!("_>=_")];

fn ordered<'a>(meter: &mut Meter<'_>, arguments: &[Val<'a>], holds: fn(Ordering) -> bool) -> Evaluated<'a> {
    let order = compare::order(meter, &arguments[0], &arguments[1])?;
    Ok(Val::Bool(order.is_some_and(holds)))
}

pub(super) fn overflow(what: &str) -> Failure {
    Failure::new(format!("{what} overflow"))
}

pub(super) fn add<'a>(meter: &mut Meter<'_>, arguments: &[Val<'a>]) -> Evaluated<'a> {
    match (&arguments[0], &arguments[1]) {
        (Val::Int(a), Val::Int(b)) => a.checked_add(*b).map(Val::Int).ok_or_else(|| overflow("integer")),
        (Val::Uint(a), Val::Uint(b)) => a.checked_add(*b).map(Val::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::String(a), Val::String(b)) => {
            meter.traverse(a.len() + b.len())?;
            Ok(Val::text([&**a, &**b].concat()))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            meter.traverse(a.len() + b.len())?;
            Ok(Val::Bytes([&**a, &**b].concat().into()))
        }
        (Val::List(a), Val::List(b)) => join(meter, a, b),
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_add(*b).map(Val::Duration).ok_or_else(|| overflow("duration"))
        }
        (Val::Timestamp(time), Val::Duration(nanos)) | (Val::Duration(nanos), Val::Timestamp(time)) => {
            time::moved(*time, *nanos).map(Val::Timestamp)
        }
        _ => Err(Failure::overload()),
    }
}

fn subtract<'a>(_meter: &mut Meter<'_>, arguments: &[Val<'a>]) -> Evaluated<'a> {
    match (&arguments[0], &arguments[1]) {
        (Val::Int(a), Val::Int(b)) => a.checked_sub(*b).map(Val::Int).ok_or_else(|| overflow("integer")),
        (Val::Uint(a), Val::Uint(b)) => a.checked_sub(*b).map(Val::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_sub(*b).map(Val::Duration).ok_or_else(|| overflow("duration"))
        }
        (Val::Timestamp(time), Val::Duration(nanos)) => {
            time::moved(*time, nanos.checked_neg().ok_or_else(|| overflow("duration"))?).map(Val::Timestamp)
        }
        (Val::Timestamp(a), Val::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map(Val::Duration).map_err(|_| overflow("duration"))
        }
        _ => Err(Failure::overload()),
    }
}

/// Both lists; what Kubernetes keeps as a set is united, what it keeps as a map is merged by its keys.
fn join<'a>(meter: &mut Meter<'_>, a: &List<'a>, b: &List<'a>) -> Evaluated<'a> {
    meter.charge((a.len() + b.len()) as u64)?;
    let mut all = a.to_vec()?;
    match a {
        List::Json(_, of) if of.kind == ListType::Set => {
            for item in b.values() {
                let item = item?;
                if !compare::contains(meter, a, &item)? {
                    all.push(item);
                }
            }
        }
        List::Json(_, of) if matches!(of.kind, ListType::Map(_)) => {
            let ListType::Map(keys) = &of.kind else { return Err(Failure::overload()) };
            for item in b.values() {
                let item = item?;
                let mut at = None;
                for (index, known) in all.iter().enumerate() {
                    meter.charge(1)?;
                    if same_keys(meter, keys, known, &item)? {
                        at = Some(index);
                        break;
                    }
                }
                match at {
                    Some(index) => all[index] = item,
                    None => all.push(item),
                }
            }
        }
        _ => all.extend(b.to_vec()?),
    }
    Ok(Val::List(List::Made(Arc::from(all))))
}

fn same_keys(meter: &mut Meter<'_>, keys: &[Box<str>], a: &Val<'_>, b: &Val<'_>) -> Result<bool, Failure> {
    let (Val::Map(a), Val::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let same = match (a.field(key), b.field(key)) {
            (Some(a), Some(b)) => compare::equal(meter, &a?, &b?)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
