//! The types of CEL values, as the checker knows them.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A type. `Dyn` stands for all of them: what is declared so is judged when it is evaluated.
#[derive(Debug, Clone, Default)]
pub(crate) enum Type {
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// Of what `type()` answers.
    Kind,
    List(Arc<ListOf>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    Object(Arc<ObjectType>),
    Opaque(Opaque),
    /// Of a signature: whatever type it first stands for.
    Param(u8),
}

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    /// As one value.
    #[default]
    Atomic,
    /// Each scalar is an item of its own.
    Set,
    /// Items are told apart by these fields.
    Map(Box<[Box<str>]>),
}

/// The type of a list's items, and how Kubernetes tells them apart.
#[derive(Debug, Default)]
pub(crate) struct ListOf {
    pub(crate) items: Type,
    pub(crate) kind: ListType,
}

/// A type with named fields.
#[derive(Debug, Default)]
pub(crate) struct ObjectType {
    pub(crate) name: String,
    /// By the name that expressions use.
    pub(crate) fields: BTreeMap<Box<str>, Field>,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in JSON.
    pub(crate) json: Box<str>,
    pub(crate) kind: Type,
}

/// The types that Kubernetes' libraries add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opaque {
    Quantity,
    Url,
    Ip,
    Cidr,
    Format,
    Semver,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
    /// What the checker makes of a constant regular expression.
    Pattern,
}

impl Opaque {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quantity => "kubernetes.Quantity",
            Self::Url => "kubernetes.URL",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Format => "kubernetes.NamedFormat",
            Self::Semver => "kubernetes.Semver",
            Self::Authorizer => "kubernetes.authorization.Authorizer",
            Self::PathCheck => "kubernetes.authorization.PathCheck",
            Self::GroupCheck => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Self::Decision => "kubernetes.authorization.Decision",
            Self::Pattern => "string",
        }
    }
}

/// What a signature's parameters stand for.
pub(crate) type Bound = [Option<Type>; 3];

impl Type {
    pub(crate) fn list(items: Self) -> Self {
        Self::List(Arc::new(ListOf { items, kind: ListType::Atomic }))
    }

    pub(crate) fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub(crate) fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Whether a value of the `given` type may stand where this one is wanted.
    pub(crate) fn accepts(&self, given: &Self, bound: &mut Bound) -> bool {
        match (self, given) {
            (Self::Param(number), _) => {
                let number = usize::from(*number);
                match bound[number].clone() {
                    None => bound[number] = Some(given.clone()),
                    Some(known) if known.is(given) => {}
                    Some(known) if given.is(&known) => bound[number] = Some(given.clone()),
                    Some(_) => return false,
                }
                true
            }
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) => a.items.accepts(&b.items, bound),
            (Self::Map(a), Self::Map(b)) => a.0.accepts(&b.0, bound) && a.1.accepts(&b.1, bound),
            (Self::Optional(a), Self::Optional(b)) => a.accepts(b, bound),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Object(_) | Self::Opaque(_) | Self::Timestamp | Self::Duration, Self::Null)
            | (Self::Null, Self::Object(_) | Self::Opaque(_) | Self::Timestamp | Self::Duration) => true,
            _ => std::mem::discriminant(self) == std::mem::discriminant(given),
        }
    }

    /// The same for types without parameters.
    pub(crate) fn is(&self, given: &Self) -> bool {
        self.accepts(given, &mut Bound::default())
    }

    /// This type with what its parameters stand for.
    pub(crate) fn with(&self, bound: &Bound) -> Self {
        match self {
            Self::Param(number) => bound[usize::from(*number)].clone().unwrap_or_default(),
            Self::List(of) => {
                // A list that comes as it was keeps how its items are told apart.
                Self::List(Arc::new(ListOf { items: of.items.with(bound), kind: of.kind.clone() }))
            }
            Self::Map(of) => Self::map(of.0.with(bound), of.1.with(bound)),
            Self::Optional(of) => Self::optional(of.with(bound)),
            other => other.clone(),
        }
    }

    /// The type of a value that is of this type or of another.
    pub(crate) fn or(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::Null, other) => other.clone(),
            (one, _) => one.clone(),
        }
    }

    /// The name that `type()` answers.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Dyn | Self::Param(_) => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::Kind => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Object(object) => &object.name,
            Self::Opaque(opaque) => opaque.name(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::List(of) => write!(f, "list({})", of.items),
            Self::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            other => f.write_str(other.name()),
        }
    }
}

/// Reads a type as signatures write it: `int`, `list<A>`, `map<string, dyn>`. The rest of the text comes with it.
///
/// # Panics
/// If it is none: signatures are constants.
pub(super) fn read(text: &str) -> (Type, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let simple = match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Kind,
        "quantity" => Type::Opaque(Opaque::Quantity),
        "url" => Type::Opaque(Opaque::Url),
        "ip" => Type::Opaque(Opaque::Ip),
        "cidr" => Type::Opaque(Opaque::Cidr),
        "format" => Type::Opaque(Opaque::Format),
        "semver" => Type::Opaque(Opaque::Semver),
        "authorizer" => Type::Opaque(Opaque::Authorizer),
        "pathcheck" => Type::Opaque(Opaque::PathCheck),
        "groupcheck" => Type::Opaque(Opaque::GroupCheck),
        "resourcecheck" => Type::Opaque(Opaque::ResourceCheck),
        "decision" => Type::Opaque(Opaque::Decision),
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "C" => Type::Param(2),
        "list" | "optional" | "map" => {
            let (first, rest) = read(&rest[1..]);
            return match name {
                "list" => (Type::list(first), &rest[1..]),
                "optional" => (Type::optional(first), &rest[1..]),
                _ => {
                    let (second, rest) = read(rest.trim_start_matches([',', ' ']));
                    (Type::map(first, second), &rest[1..])
                }
            };
        }
        other => unreachable!("no signature has a type {other:?}"),
    };
    (simple, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_bind_their_parameters() {
        let (list, rest) = read("list<map<A, B>>, A");
        assert_eq!((list.to_string().as_str(), rest), ("list(map(dyn, dyn))", ", A"));
        let mut bound = Bound::default();
        assert!(list.accepts(&Type::list(Type::map(Type::String, Type::Int)), &mut bound));
        assert!(Type::Param(0).accepts(&Type::String, &mut bound));
        assert!(!Type::Param(1).accepts(&Type::String, &mut bound));
        assert_eq!(read("map<B, A>").0.with(&bound).to_string(), "map(int, string)");
        assert!(Type::Timestamp.is(&Type::Null) && !Type::Int.is(&Type::Null));
    }
}
