//! What an expression may cost at most, by how large the values may be that it reads: cel-go's estimate
//! (<https://pkg.go.dev/github.com/google/cel-go/checker#Cost>).

use std::{collections::BTreeMap, rc::Rc};

use super::{
    check::{Code, Fold, FoldKind, Wanted},
    value::Val,
};

/// How large the values of a type may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    /// Characters, bytes, items or entries; 1 for what has none.
    most: u64,
    /// Of an object, by the names in expressions.
    fields: BTreeMap<Box<str>, Bounds>,
    /// Of a list's items, or a map's values.
    items: Option<Box<Bounds>>,
}

impl Bounds {
    pub(super) fn sized(most: u64) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn of_items(most: u64, items: Self) -> Self {
        Self { most, items: Some(Box::new(items)), ..Self::default() }
    }

    pub(super) fn of_fields(fields: BTreeMap<Box<str>, Self>) -> Self {
        Self { most: 1, fields, items: None }
    }
}

/// Bounds of a value that is read or made.
#[derive(Clone)]
enum Size<'b> {
    Read(&'b Bounds),
    Made(u64, Option<Rc<Size<'b>>>),
    /// Nothing is known.
    Unknown,
}

impl<'b> Size<'b> {
    fn most(&self) -> u64 {
        match self {
            Self::Read(bounds) => bounds.most,
            Self::Made(most, _) => *most,
            Self::Unknown => 1,
        }
    }

    fn item(&self) -> Self {
        match self {
            Self::Read(bounds) => bounds.items.as_deref().map_or(Self::Unknown, Self::Read),
            Self::Made(_, Some(items)) => Self::clone(items),
            _ => Self::Unknown,
        }
    }

    fn field(&self, name: &str) -> Self {
        match self {
            Self::Read(bounds) => match bounds.fields.get(name) {
                Some(field) => Self::Read(field),
                None => self.item(),
            },
            _ => Self::Unknown,
        }
    }

    fn larger(self, other: Self) -> Self {
        if other.most() > self.most() { other } else { self }
    }
}

/// The most that an expression costs whose variables have these bounds.
pub(crate) fn estimate(program: &super::Program, variables: &[&Bounds]) -> u64 {
    Estimate { variables, locals: Vec::new() }.code(&program.code).0
}

struct Estimate<'b> {
    variables: &'b [&'b Bounds],
    locals: Vec<Size<'b>>,
}

/// Cost and size.
type Estimated<'b> = (u64, Size<'b>);

impl<'b> Estimate<'b> {
    fn code(&mut self, code: &Code) -> Estimated<'b> {
        match code {
            Code::Constant(value) => (0, Size::Made(constant(value), None)),
            Code::Variable(at) => (1, self.variables.get(*at).map_or(Size::Unknown, |bounds| Size::Read(bounds))),
            Code::Local(at) => (1, self.locals.get(*at).cloned().unwrap_or(Size::Unknown)),
            Code::Select(of, name, wanted) => {
                let (cost, size) = self.code(of);
                (cost.saturating_add(1), if *wanted == Wanted::Presence { Size::Unknown } else { size.field(name) })
            }
            Code::And(both) | Code::Or(both) => (self.all(&**both), Size::Unknown),
            Code::If(parts) => {
                let [test, yes, no] = &**parts;
                let ((yes, a), (no, b)) = (self.code(yes), self.code(no));
                (self.code(test).0.saturating_add(yes.max(no)), a.larger(b))
            }
            Code::Index(parts, _) => {
                let (cost, size) = self.code(&parts[0]);
                (cost.saturating_add(self.code(&parts[1]).0).saturating_add(1), size.item())
            }
            Code::Call(overloads, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(|argument| self.code(argument)).collect();
                let before = arguments.iter().fold(0_u64, |sum, (cost, _)| sum.saturating_add(*cost));
                let sizes: Vec<_> = arguments.into_iter().map(|(_, size)| size).collect();
                let text = overloads.iter().any(|o| matches!(o.result, super::Type::String | super::Type::Bytes));
                let (cost, size) = call(overloads.first().map_or("", |overload| overload.name), &sizes, text);
                (before.saturating_add(cost), size)
            }
            Code::List(items) => {
                let mut item = Size::Unknown;
                let cost = items.iter().fold(10_u64, |cost, (code, _)| {
                    let (own, size) = self.code(code);
                    item = item.clone().larger(size);
                    cost.saturating_add(own)
                });
                (cost, Size::Made(items.len() as u64, Some(Rc::new(item))))
            }
            Code::Map(entries) => {
                let mut item = Size::Unknown;
                let cost = entries.iter().fold(30_u64, |cost, (key, value, _)| {
                    let (own, size) = self.code(value);
                    item = item.clone().larger(size);
                    cost.saturating_add(self.code(key).0).saturating_add(own)
                });
                (cost, Size::Made(entries.len() as u64, Some(Rc::new(item))))
            }
            Code::Fold(fold) => self.fold(fold),
            Code::Bind(parts) | Code::MapOptional(parts, _) => {
                let (cost, size) = self.code(&parts[0]);
                self.locals.push(size);
                let (body, size) = self.code(&parts[1]);
                self.locals.pop();
                (cost.saturating_add(body), size)
            }
        }
    }

    fn all(&mut self, codes: &[Code]) -> u64 {
        codes.iter().fold(0, |sum, code| sum.saturating_add(self.code(code).0))
    }

    fn fold(&mut self, fold: &Fold) -> Estimated<'b> {
        let (range, over) = self.code(&fold.range);
        let outside = self.locals.len();
        if fold.two {
            self.locals.push(Size::Unknown);
        }
        self.locals.push(over.item());
        let filter = fold.filter.as_ref().map_or(0, |filter| self.code(filter).0);
        let (body, made) = self.code(&fold.body);
        self.locals.truncate(outside);
        let makes = !matches!(fold.kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne);
        let turn = filter.saturating_add(body).saturating_add(if makes { 13 } else { 3 });
        let cost = range.saturating_add(over.most().saturating_mul(turn));
        let size = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Size::Unknown,
            FoldKind::Filter => Size::Made(over.most(), Some(Rc::new(over.item()))),
            FoldKind::List | FoldKind::Map | FoldKind::Entries => Size::Made(over.most(), Some(Rc::new(made))),
        };
        (cost, size)
    }
}

fn constant(value: &Val<'_>) -> u64 {
    match value {
        Val::Other(other) => match &**other {
            super::Other::Pattern(pattern) => pattern.as_str().len() as u64,
            _ => 1,
        },
        value => value.size() as u64,
    }
}

/// The cost of a function for arguments of such sizes, and the size of what it makes; `text` is whether that is a text.
fn call<'b>(name: &str, sizes: &[Size<'b>], text: bool) -> Estimated<'b> {
    let most = |at: usize| sizes.get(at).map_or(1, Size::most);
    let tenth = |size: u64| size.div_ceil(10).max(1);
    let texts = |size: u64| Size::Made(size, None);
    match name.trim_start_matches('.') {
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => (tenth(most(0).min(most(1))), Size::Unknown),
        "_+_" => {
            let size = most(0).saturating_add(most(1));
            let items = sizes.iter().map(Size::item).reduce(Size::larger).map(Rc::new);
            if text { (tenth(size), texts(size)) } else { (1, Size::Made(size, items)) }
        }
        "@in" => (most(1), Size::Unknown),
        "matches" | "find" | "findAll" => {
            let cost = tenth(most(0).saturating_add(1)).saturating_mul(most(1).div_ceil(4).max(1));
            (cost, Size::Made(most(0), Some(Rc::new(texts(most(0))))))
        }
        "contains" | "indexOf" | "lastIndexOf"
            if sizes.first().is_some_and(|size| matches!(size.item(), Size::Unknown)) =>
        {
            (tenth(most(0)).saturating_mul(tenth(most(1))), Size::Unknown)
        }
        "startsWith" | "endsWith" => (tenth(most(1)), Size::Unknown),
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" => {
            let item = sizes.first().map_or(Size::Unknown, Size::item);
            (most(0).saturating_mul(tenth(item.most())), item)
        }
        "sets.contains" | "sets.intersects" => (most(0).saturating_mul(most(1)), Size::Unknown),
        "sets.equivalent" => (most(0).saturating_mul(most(1)).saturating_mul(2), Size::Unknown),
        "distinct" | "sort" => (most(0).saturating_mul(most(0)), sizes[0].clone()),
        "check" => (350_000, Size::Unknown),
        "replace" => (tenth(most(0)), texts(most(0).saturating_mul(most(2).max(1)))),
        "split" => (tenth(most(0)), Size::Made(most(0), Some(Rc::new(texts(most(0)))))),
        "join" => {
            let item = sizes.first().map_or(1, |size| size.item().most()).saturating_add(most(1));
            let size = most(0).saturating_mul(item);
            (tenth(size), texts(size))
        }
        "dyn" | "value" | "or" | "orValue" | "optional.of" => {
            (1, sizes.iter().cloned().reduce(Size::larger).unwrap_or(Size::Unknown))
        }
        "size" | "type" | "hasValue" | "int" | "uint" | "double" => (1, Size::Unknown),
        "string" => (1, texts(most(0))),
        _ if text => (tenth(most(0)), texts(most(0))),
        _ => (tenth(most(0)), Size::Unknown),
    }
}
