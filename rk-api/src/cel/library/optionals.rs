//! Optional values (<https://pkg.go.dev/github.com/google/cel-go/cel#OptionalTypes>).

use super::{
    super::value::{Failure, Map, Val},
    Row,
    lists::unwrapped,
};

pub(super) const ROWS: &[Row] = &[
    (&["optional.of(A) optional<A>"], |_, a| Ok(Val::some(a[0].clone()))),
    (&["optional.ofNonZeroValue(A) optional<A>"], |_, a| {
        Ok(if is_zero(&a[0]) { Val::Optional(None) } else { Val::some(a[0].clone()) })
    }),
    (&["optional.none() optional<dyn>"], |_, _| Ok(Val::Optional(None))),
    (&[".hasValue(optional<A>) bool"], |_, a| match &a[0] {
        Val::Optional(value) => Ok(Val::Bool(value.is_some())),
        _ => Err(Failure::overload()),
    }),
    (&[".value(optional<A>) A"], |_, a| match &a[0] {
        Val::Optional(Some(value)) => Ok(Val::clone(value)),
        Val::Optional(None) => Err(Failure::new("optional.none() dereference")),
        _ => Err(Failure::overload()),
    }),
    (&[".or(optional<A>, optional<A>) optional<A>"], |_, a| {
        Ok(if matches!(a[0], Val::Optional(None)) { a[1].clone() } else { a[0].clone() })
    }),
    (&[".orValue(optional<A>, A) A"], |_, a| match &a[0] {
        Val::Optional(Some(value)) => Ok(Val::clone(value)),
        Val::Optional(None) => Ok(a[1].clone()),
        _ => Err(Failure::overload()),
    }),
    (&["optional.unwrap(list<optional<A>>) list<A>", ".unwrapOpt(list<optional<A>>) list<A>"], |meter, a| {
        unwrapped(meter, &a[0])
    }),
];

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Optional(None) | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(number) => *number == 0.0,
        Val::String(_) | Val::Bytes(_) | Val::List(_) => value.size() == 0,
        Val::Map(Map::Object(map, _)) => map.is_empty(),
        Val::Map(_) => value.size() == 0,
        _ => false,
    }
}
