//! Values while an expression is evaluated. What comes from an object borrows from its tree and is typed as it is read.

use std::{collections::BTreeMap, net::IpAddr, ops::Deref, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map as JsonMap, Value};

use super::{
    library::{
        authorizer::{Authorizer, Check, Verdict},
        formats::Format,
        network::Cidr,
        semver::Semver,
        time,
        urls::Url,
    },
    types::{ListOf, ListType, ObjectType, Opaque, Type},
};
use crate::Quantity;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It says what is wrong, in cel-go's words.
    Error(String),
    /// It costs more than it may.
    Cost,
    /// It asks whether somebody may do something, which is not known yet: evaluate again once it is.
    Ask(Box<Check>),
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }

    pub(super) fn no_key(key: &str) -> Self {
        Self::Error(format!("no such key: {key}"))
    }

    pub(crate) fn overload() -> Self {
        Self::Error("no such overload".to_owned())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(text) => f.write_str(text),
            Self::Cost => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Ask(_) => f.write_str("the authorizer was not asked"),
        }
    }
}

/// The outcome of evaluating something.
pub(super) type Evaluated<'a> = Result<Val<'a>, Failure>;

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// In nanoseconds, as Go counts.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Val<'a>>>),
    /// A type, by its name.
    Type(Text<'a>),
    Other(Arc<Other>),
}

/// A string of an object, or one that was made.
#[derive(Debug, Clone)]
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Made(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// A list of an object, or one that was made.
#[derive(Debug, Clone)]
pub(crate) enum List<'a> {
    Json(&'a [Value], &'a ListOf),
    Made(Arc<[Val<'a>]>),
}

/// A map.
#[derive(Debug, Clone)]
pub(crate) enum Map<'a> {
    /// Of an object whose keys have no names of their own; all values are of one type.
    Json(&'a JsonMap<String, Value>, &'a Type),
    /// An object with named fields.
    Object(&'a JsonMap<String, Value>, &'a ObjectType),
    Made(Arc<BTreeMap<Key, Val<'a>>>),
    /// Maps by domain; of a domain that is not there, the map is empty.
    Domains(Arc<BTreeMap<Key, Val<'a>>>),
}

/// A key of a map that was made. Whole numbers are the same key whatever their type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bool(bool),
    Int(i128),
    String(Arc<str>),
}

/// What Kubernetes' libraries add.
#[derive(Debug)]
pub(crate) enum Other {
    Quantity(Quantity),
    Url(Url),
    Ip(IpAddr),
    Cidr(Cidr),
    Format(&'static Format),
    Semver(Semver),
    Authorizer(Authorizer),
    Check(Check),
    Verdict(Verdict),
    /// A regular expression that the checker compiled; it stands for its text.
    Pattern(Arc<Regex>),
}

impl Other {
    pub(super) fn opaque(&self) -> Opaque {
        match self {
            Self::Quantity(_) => Opaque::Quantity,
            Self::Url(_) => Opaque::Url,
            Self::Ip(_) => Opaque::Ip,
            Self::Cidr(_) => Opaque::Cidr,
            Self::Format(_) => Opaque::Format,
            Self::Semver(_) => Opaque::Semver,
            Self::Authorizer(_) => Opaque::Authorizer,
            Self::Check(check) => check.opaque(),
            Self::Verdict(_) => Opaque::Decision,
            Self::Pattern(_) => Opaque::Pattern,
        }
    }
}

static DYN: Type = Type::Dyn;
static DYN_LIST: ListOf = ListOf { items: Type::Dyn, kind: ListType::Atomic };

impl<'a> Val<'a> {
    /// A value of an object, of a type.
    ///
    /// # Errors
    /// The value is not of the type.
    pub(crate) fn of(json: &'a Value, kind: &'a Type) -> Evaluated<'a> {
        let wrong = || Failure::new(format!("invalid data, expected a value of type {kind}"));
        Ok(match (kind, json) {
            (_, Value::Null) => Self::Null,
            (Type::Double, Value::Number(number)) => Self::Double(number.as_f64().ok_or_else(wrong)?),
            (Type::Dyn | Type::Int, Value::Number(number)) => match number.as_i64() {
                Some(number) => Self::Int(number),
                // Such as 1.0, which is a whole number in JSON.
                None => match (kind, number.as_f64()) {
                    (Type::Int, Some(float)) if float.fract() == 0.0 && float.abs() < 9.2e18 => Self::Int(float as i64),
                    (Type::Dyn, Some(float)) => Self::Double(float),
                    _ => return Err(wrong()),
                },
            },
            (Type::Dyn | Type::Bool, Value::Bool(flag)) => Self::Bool(*flag),
            (Type::Dyn | Type::String, Value::String(text)) => Self::String(Text::Borrowed(text)),
            (Type::Bytes, Value::String(text)) => {
                Self::Bytes(STANDARD.decode(text).map_err(|error| Failure::new(error.to_string()))?.into())
            }
            (Type::Timestamp, Value::String(text)) => Self::Timestamp(time::timestamp(text)?),
            (Type::Duration, Value::String(text)) => Self::Duration(time::duration(text)?),
            (Type::List(of), Value::Array(items)) => Self::List(List::Json(items, of)),
            (Type::Dyn, Value::Array(items)) => Self::List(List::Json(items, &DYN_LIST)),
            (Type::Map(of), Value::Object(map)) => Self::Map(Map::Json(map, &of.1)),
            (Type::Dyn, Value::Object(map)) => Self::Map(Map::Json(map, &DYN)),
            (Type::Object(of), Value::Object(map)) => Self::Map(Map::Object(map, of)),
            _ => return Err(wrong()),
        })
    }

    pub(super) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Made(text.into()))
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(items.into()))
    }

    pub(crate) fn other(other: Other) -> Self {
        Self::Other(Arc::new(other))
    }

    /// The value, of a type of Kubernetes' libraries.
    ///
    /// # Errors
    /// It is of another type.
    pub(super) fn as_other(&self) -> Result<&Other, Failure> {
        match self {
            Self::Other(other) => Ok(other),
            _ => Err(Failure::overload()),
        }
    }

    pub(super) fn some(value: Self) -> Self {
        Self::optional(Some(value))
    }

    pub(crate) fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Arc::new))
    }

    /// Whether the value may stand where a parameter of this type is.
    pub(super) fn fits(&self, kind: &Type) -> bool {
        match (kind, self) {
            (Type::Opaque(opaque), Self::Other(other)) => *opaque == other.opaque(),
            (Type::String, Self::Other(other)) => other.opaque() == Opaque::Pattern,
            (Type::Dyn | Type::Param(_), _)
            | (Type::Null, Self::Null)
            | (Type::Bool, Self::Bool(_))
            | (Type::Int, Self::Int(_))
            | (Type::Uint, Self::Uint(_))
            | (Type::Double, Self::Double(_))
            | (Type::String, Self::String(_))
            | (Type::Bytes, Self::Bytes(_))
            | (Type::Timestamp, Self::Timestamp(_))
            | (Type::Duration, Self::Duration(_))
            | (Type::Kind, Self::Type(_))
            | (Type::List(_), Self::List(_))
            | (Type::Map(_), Self::Map(_))
            | (Type::Optional(_), Self::Optional(_)) => true,
            _ => false,
        }
    }

    fn kind_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Other(other) => other.opaque().name(),
        }
    }

    /// The name of the value's type.
    pub(super) fn type_name(&self) -> Text<'a> {
        match self {
            Self::Map(Map::Object(_, kind)) => Text::Borrowed(&kind.name),
            other => Text::Made(other.kind_name().into()),
        }
    }

    /// How much there is to go through: characters, items, or one.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(value)) => value.size(),
            _ => 1,
        }
    }

    /// The value as a tree, as far as there is one.
    pub(crate) fn to_json(&self) -> Result<Value, Failure> {
        Ok(match self {
            Self::Null | Self::Optional(None) => Value::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::String(text) => (**text).into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::Timestamp(time) => time::write_timestamp(*time).into(),
            Self::Duration(nanos) => time::write_duration(*nanos).into(),
            Self::List(List::Json(items, _)) => Value::Array(items.to_vec()),
            Self::List(List::Made(items)) => {
                items.iter().map(Self::to_json).collect::<Result<Vec<_>, Failure>>()?.into()
            }
            Self::Map(Map::Json(map, _) | Map::Object(map, _)) => Value::Object((*map).clone()),
            Self::Map(Map::Made(map) | Map::Domains(map)) => {
                let entries = map.iter().map(|(key, value)| Ok((key.to_string(), value.to_json()?)));
                Value::Object(entries.collect::<Result<JsonMap<_, _>, Failure>>()?)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Type(name) => (**name).into(),
            Self::Other(other) => match &**other {
                Other::Quantity(quantity) => quantity.to_string().into(),
                Other::Ip(ip) => ip.to_string().into(),
                Other::Cidr(cidr) => cidr.to_string().into(),
                other => return Err(Failure::new(format!("a {} has no form in JSON", other.opaque().name()))),
            },
        })
    }

    /// The value as the key of a map.
    pub(super) fn key(&self) -> Result<Key, Failure> {
        Ok(match self {
            Self::Bool(flag) => Key::Bool(*flag),
            Self::Int(number) => Key::Int((*number).into()),
            Self::Uint(number) => Key::Int((*number).into()),
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 1e19 => Key::Int(*number as i128),
            Self::String(text) => Key::String((**text).into()),
            other => return Err(Failure::new(format!("unsupported key type: {}", other.kind_name()))),
        })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl<'a> Key {
    fn value(&self) -> Val<'a> {
        match self {
            Self::Bool(flag) => Val::Bool(*flag),
            Self::Int(number) => match i64::try_from(*number) {
                Ok(number) => Val::Int(number),
                Err(_) => Val::Uint(u64::try_from(*number).unwrap_or(u64::MAX)),
            },
            Self::String(text) => Val::String(Text::Made(Arc::clone(text))),
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// The item at an index that is in bounds.
    pub(super) fn at(&self, index: usize) -> Evaluated<'a> {
        match self {
            Self::Json(items, of) => items.get(index).map(|item| Val::of(item, &of.items)),
            Self::Made(items) => items.get(index).map(|item| Ok(item.clone())),
        }
        .unwrap_or_else(|| Err(Failure::new(format!("index out of bounds: {index}"))))
    }

    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = Evaluated<'a>> + '_ {
        (0..self.len()).map(|index| self.at(index))
    }

    /// All items.
    pub(super) fn to_vec(&self) -> Result<Vec<Val<'a>>, Failure> {
        self.values().collect()
    }
}

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Object(map, kind) => kind.fields.values().filter(|field| map.contains_key(&*field.json)).count(),
            Self::Made(map) | Self::Domains(map) => map.len(),
        }
    }

    /// The value of a field or of a key that is a string.
    pub(super) fn field(&self, name: &str) -> Option<Evaluated<'a>> {
        match self {
            Self::Json(map, kind) => map.get(name).map(|value| Val::of(value, kind)),
            Self::Object(map, kind) => {
                let field = kind.fields.get(name)?;
                map.get(&*field.json).map(|value| Val::of(value, &field.kind))
            }
            Self::Made(map) => map.get(&Key::String(name.into())).cloned().map(Ok),
            Self::Domains(map) => {
                let known = map.get(&Key::String(name.into())).cloned();
                Some(Ok(known.unwrap_or_else(|| Val::Map(Map::Made(Arc::default())))))
            }
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &Val<'_>) -> Option<Evaluated<'a>> {
        match (self, key) {
            (_, Val::String(name)) => self.field(name),
            (Self::Made(map), key) => map.get(&key.key().ok()?).cloned().map(Ok),
            _ => None,
        }
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &Val<'_>) -> bool {
        match self {
            Self::Domains(map) => key.key().is_ok_and(|key| map.contains_key(&key)),
            _ => self.get(key).is_some(),
        }
    }

    /// The keys.
    pub(super) fn keys(&self) -> Vec<Val<'a>> {
        let text = |name: &'a str| Val::String(Text::Borrowed(name));
        match self {
            Self::Json(map, _) => map.keys().map(|key| text(key)).collect(),
            Self::Object(map, kind) => {
                let present = kind.fields.iter().filter(|(_, field)| map.contains_key(&*field.json));
                present.map(|(name, _)| text(name)).collect()
            }
            Self::Made(map) | Self::Domains(map) => map.keys().map(Key::value).collect(),
        }
    }
}
