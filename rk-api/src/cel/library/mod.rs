//! The functions: CEL's standard ones, cel-go's extensions and Kubernetes' own libraries.
//!
//! A row of a library is its signatures and what is called. In a signature a leading dot marks a member function, whose
//! first parameter is what it is called on; `A` and `B` stand for any type.

pub(crate) mod authorizer;
pub(super) mod compare;
mod convert;
pub(super) mod formats;
mod lists;
pub(super) mod network;
mod operators;
mod optionals;
mod quantities;
pub(super) mod regexes;
pub(super) mod semver;
mod strings;
pub(super) mod time;
pub(super) mod urls;

use std::{collections::HashMap, sync::LazyLock};

use super::{
    eval::Meter,
    types::{Type, read},
    value::{Evaluated, Val},
};

/// What a function does.
pub(super) type Call = for<'a> fn(&mut Meter<'_>, &[Val<'a>]) -> Evaluated<'a>;

/// Signatures, and what is called for all of them.
type Row = (&'static [&'static str], Call);

/// A function for arguments of some types.
pub(super) struct Overload {
    pub(super) name: &'static str,
    pub(super) parameters: Vec<Type>,
    pub(super) result: Type,
    pub(super) call: Call,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overload")
            .field("name", &self.name)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// The types that expressions can name.
pub(super) const TYPES: [&str; 18] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "net.IP",
    "net.CIDR",
    "kubernetes.Quantity",
    "kubernetes.URL",
    "kubernetes.Semver",
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let rows = [
        operators::ROWS,
        convert::ROWS,
        strings::ROWS,
        lists::ROWS,
        regexes::ROWS,
        time::ROWS,
        optionals::ROWS,
        quantities::ROWS,
        urls::ROWS,
        network::ROWS,
        formats::ROWS,
        semver::ROWS,
        authorizer::ROWS,
    ];
    let mut functions: HashMap<_, Vec<_>> = HashMap::new();
    for (signatures, call) in rows.into_iter().flatten() {
        for signature in *signatures {
            let overload = signed(signature, *call);
            functions.entry(overload.name).or_default().push(overload);
        }
    }
    functions
});

/// The overload of a signature.
fn signed(signature: &'static str, call: Call) -> Overload {
    let (name, mut rest) = signature.split_at(signature.find('(').unwrap_or(signature.len()));
    rest = &rest[1..];
    let mut parameters = Vec::new();
    while !rest.starts_with(')') {
        let (parameter, after) = read(rest);
        parameters.push(parameter);
        rest = after.trim_start_matches([',', ' ']);
    }
    Overload { name, parameters, result: read(rest[1..].trim_start()).0, call }
}

/// The overloads of a function; the name of a member function has a dot in front.
pub(super) fn functions(name: &str) -> Option<&'static [Overload]> {
    FUNCTIONS.get(name).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        let contains = functions(".contains").unwrap();
        assert_eq!(contains[0].parameters.len(), 2);
        assert_eq!(contains[0].result.to_string(), "bool");
        let map = functions("_[_]");
        assert!(map.is_none(), "the checker's own");
        assert_eq!(functions("optional.none").unwrap()[0].parameters.len(), 0);
    }
}
