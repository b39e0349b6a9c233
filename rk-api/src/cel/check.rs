//! The checker: names become places, calls become overloads, and what can't be right whatever the values is an error.
//!
//! Types are inferred as cel-go does, with one difference: what an empty list, map or optional holds is `dyn`.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo, StructExpr, operators},
};

use super::{
    Environment,
    library::{self, Overload, regexes},
    parse::{CompileError, Issue, place, report},
    types::{Bound, Type},
    value::Val,
};

/// A checked expression.
#[derive(Debug)]
pub(super) enum Code {
    Constant(Val<'static>),
    /// A declared variable.
    Variable(usize),
    /// A variable of a macro around this.
    Local(usize),
    Select(Box<Code>, Box<str>, Wanted),
    And(Box<[Code; 2]>),
    Or(Box<[Code; 2]>),
    If(Box<[Code; 3]>),
    Index(Box<[Code; 2]>, Wanted),
    /// The first overload that takes the arguments as they are is called.
    Call(Box<[&'static Overload]>, Box<[Code]>),
    /// Items; those that are marked are optionals, and left out if they are none.
    List(Box<[(Code, bool)]>),
    Map(Box<[(Code, Code, bool)]>),
    Fold(Box<Fold>),
    /// A value, and what is made of it.
    Bind(Box<[Code; 2]>),
    /// The same for the value of an optional; whether what is made is an optional itself.
    MapOptional(Box<[Code; 2]>, bool),
}

/// What is wanted of a field or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Value,
    /// `has()`
    Presence,
    /// `.?` and `[?]`
    Optional,
}

/// A macro that goes through a list or a map.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) kind: FoldKind,
    pub(super) range: Code,
    /// Index and item, or key and value; else the item, or the key.
    pub(super) two: bool,
    pub(super) filter: Option<Code>,
    pub(super) body: Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// A list of what the body makes.
    List,
    /// A list of the items for which the body holds.
    Filter,
    /// A map from the keys to what the body makes.
    Map,
    /// A map of the maps that the body makes.
    Entries,
}

/// The code of a tree, and its type.
pub(super) fn check(
    environment: &Environment,
    text: &str,
    tree: &IdedExpr,
    source: &SourceInfo,
) -> Result<(Code, Type), CompileError> {
    let mut checker = Checker { environment, text, source, locals: Vec::new(), issues: Vec::new() };
    let checked = checker.check(tree);
    if checker.issues.is_empty() { Ok(checked) } else { Err(report(text, checker.issues)) }
}

struct Checker<'e> {
    environment: &'e Environment,
    text: &'e str,
    source: &'e SourceInfo,
    /// Variables of the macros around, by name.
    locals: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

type Checked = (Code, Type);

impl Checker<'_> {
    /// Notes an issue; what it was found in is then worth anything.
    fn issue(&mut self, at: u64, message: String) -> Checked {
        let offset = self.source.offset_for(at).map_or(0, |(start, _)| start as usize);
        self.issues.push(Issue { place: place(self.text, offset), message });
        (Code::Constant(Val::Null), Type::Dyn)
    }

    fn undeclared(&mut self, at: u64, name: &str) -> Checked {
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn no_overload(&mut self, at: u64, name: &str, member: bool, types: &[Type]) -> Checked {
        let list = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
        let applied = match types {
            [target, arguments @ ..] if member => format!("{target}.({})", list(arguments)),
            all => format!("({})", list(all)),
        };
        self.issue(at, format!("found no matching overload for '{name}' applied to '{applied}'"))
    }

    fn check(&mut self, tree: &IdedExpr) -> Checked {
        match &tree.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => match self.name(name) {
                Some(found) => found,
                None => self.undeclared(tree.id, name),
            },
            Expr::Select(select) => self.select(tree, select),
            Expr::Call(call) => self.call(tree.id, call),
            Expr::List(list) => self.list(list, false),
            Expr::Map(map) => self.map(map),
            Expr::Struct(fields) => self.fields(tree.id, fields),
            Expr::Comprehension(_) | Expr::Unspecified => self.issue(tree.id, "unexpected expression".to_owned()),
        }
    }

    /// What a name stands for: a variable of a macro, one that is declared, or a type.
    fn name(&self, name: &str) -> Option<Checked> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(at) = self.locals.iter().rposition(|(local, _)| local == name) {
            return Some((Code::Local(at), self.locals[at].1.clone()));
        }
        if let Some(at) = self.environment.variables.iter().position(|(variable, _)| variable == name) {
            return Some((Code::Variable(at), self.environment.variables[at].1.clone()));
        }
        let named = library::TYPES.iter().find(|known| **known == name)?;
        Some((Code::Constant(Val::Type(super::value::Text::Borrowed(named))), Type::Kind))
    }

    /// The longest name that a chain of selections spells and that is declared as a whole.
    fn qualified(&self, tree: &IdedExpr) -> Option<Checked> {
        let name = spelled(tree)?;
        let root = name.split('.').next().unwrap_or_default();
        let shadowed = self.locals.iter().any(|(local, _)| local == root);
        if shadowed { None } else { self.name(&name) }
    }

    fn select(&mut self, tree: &IdedExpr, select: &SelectExpr) -> Checked {
        if let Some(found) = self.qualified(tree) {
            return found;
        }
        let of = self.check(&select.operand);
        self.field(tree.id, of, &select.field, Wanted::Value)
    }

    fn field(&mut self, at: u64, of: Checked, name: &str, wanted: Wanted) -> Checked {
        let (code, kind) = of;
        let (holder, chained) = match &kind {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &holder {
            Type::Dyn => Type::Dyn,
            Type::Map(of) => of.1.clone(),
            Type::Object(object) => match object.fields.get(name) {
                Some(field) => field.kind.clone(),
                None => return self.issue(at, format!("undefined field '{name}'")),
            },
            other => return self.issue(at, format!("type '{other}' does not support field selection")),
        };
        let kind = match wanted {
            Wanted::Presence => Type::Bool,
            Wanted::Optional => Type::optional(found),
            Wanted::Value if chained => Type::optional(found),
            Wanted::Value => found,
        };
        (Code::Select(Box::new(code), name.into(), wanted), kind)
    }

    fn call(&mut self, at: u64, call: &CallExpr) -> Checked {
        if let Some(done) = self.expand(at, call) {
            return done;
        }
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
                let (left, right) = (self.check(left), self.check(right));
                if !Type::Bool.is(&left.1) || !Type::Bool.is(&right.1) {
                    return self.no_overload(at, name, false, &[left.1, right.1]);
                }
                let both = Box::new([left.0, right.0]);
                return (if name == operators::LOGICAL_AND { Code::And(both) } else { Code::Or(both) }, Type::Bool);
            }
            (operators::CONDITIONAL, [test, yes, no]) => {
                let (test, yes, no) = (self.check(test), self.check(yes), self.check(no));
                if !Type::Bool.is(&test.1) || !(yes.1.is(&no.1) || no.1.is(&yes.1)) {
                    return self.no_overload(at, name, false, &[test.1, yes.1, no.1]);
                }
                return (Code::If(Box::new([test.0, yes.0, no.0])), yes.1.or(&no.1));
            }
            (operators::INDEX | operators::OPT_INDEX, [of, index]) => {
                let (of, index) = (self.check(of), self.check(index));
                return self.index(at, name, of, index);
            }
            (operators::OPT_SELECT, [of, field]) => {
                let of = self.check(of);
                return match &field.expr {
                    Expr::Literal(LiteralValue::String(field)) => self.field(at, of, field.inner(), Wanted::Optional),
                    _ => self.issue(at, "unsupported optional field selection".to_owned()),
                };
            }
            _ => {}
        }
        let target = call.target.as_deref();
        // A target may be the first part of a function's name, as in `sets.contains`.
        let namespaced = target.and_then(spelled).map(|space| format!("{space}.{name}")).filter(|full| {
            let root = full.split('.').next().unwrap_or_default();
            library::functions(full).is_some() && !self.locals.iter().any(|(local, _)| local == root)
        });
        let (full, member) = match (&namespaced, target) {
            (Some(full), _) => (full.clone(), false),
            (None, Some(_)) => (format!(".{name}"), true),
            (None, None) => (name.strip_prefix('.').unwrap_or(name).to_owned(), false),
        };
        let receiver = target.filter(|_| namespaced.is_none());
        let arguments: Vec<Checked> = receiver
            .into_iter()
            .chain(&call.args)
            .map(|tree| match &tree.expr {
                // What is formatted may be of all types.
                Expr::List(list) if name == "format" => self.list(list, true),
                _ => self.check(tree),
            })
            .collect();
        self.function(at, name, &full, member, arguments)
    }

    fn function(&mut self, at: u64, name: &str, full: &str, member: bool, arguments: Vec<Checked>) -> Checked {
        let Some(overloads) = library::functions(full) else {
            return self.undeclared(at, name);
        };
        let (mut code, types): (Vec<_>, Vec<_>) = arguments.into_iter().unzip();
        let mut found: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.parameters.len() == types.len()) {
            let mut bound = Bound::default();
            if overload.parameters.iter().zip(&types).all(|(wanted, given)| wanted.accepts(given, &mut bound)) {
                let kind = overload.result.with(&bound);
                let same = result.as_ref().is_none_or(|result| result.is(&kind) && !matches!(result, Type::Dyn));
                result = Some(if same { kind } else { Type::Dyn });
                found.push(overload);
            }
        }
        let Some(mut result) = result else { return self.no_overload(at, name, member, &types) };
        // What is added to a set or a map of Kubernetes is one still.
        if let (operators::ADD, [list @ Type::List(_), _]) = (name, types.as_slice()) {
            result = list.clone();
        }
        if let (true, [_, Code::Constant(Val::String(pattern)), ..]) =
            (matches!(name, "matches" | "find" | "findAll"), code.as_slice())
        {
            match regexes::compiled(pattern) {
                Ok(pattern) => code[1] = Code::Constant(pattern),
                Err(failure) => return self.issue(at, failure.to_string()),
            }
        }
        (Code::Call(found.into(), code.into()), result)
    }

    fn index(&mut self, at: u64, name: &str, of: Checked, index: Checked) -> Checked {
        let (holder, chained) = match &of.1 {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &holder {
            Type::Dyn => Some(Type::Dyn),
            Type::List(list) if Type::Int.is(&index.1) => Some(list.items.clone()),
            Type::Map(map) if map.0.is(&index.1) => Some(map.1.clone()),
            _ => None,
        };
        let Some(found) = found else { return self.no_overload(at, name, false, &[of.1, index.1]) };
        let wanted = if name == operators::OPT_INDEX { Wanted::Optional } else { Wanted::Value };
        let optional = chained || wanted == Wanted::Optional;
        (Code::Index(Box::new([of.0, index.0]), wanted), if optional { Type::optional(found) } else { found })
    }

    /// A macro, if the call is one.
    fn expand(&mut self, at: u64, call: &CallExpr) -> Option<Checked> {
        let arguments = call.args.as_slice();
        let Some(target) = call.target.as_deref() else {
            return match (call.func_name.as_str(), arguments) {
                ("has", [IdedExpr { expr: Expr::Select(select), .. }]) => {
                    let of = self.check(&select.operand);
                    Some(self.field(at, of, &select.field, Wanted::Presence))
                }
                ("has", _) => Some(self.issue(at, "invalid argument to has() macro".to_owned())),
                _ => None,
            };
        };
        let fold = |kind, variables, rest| Some((kind, variables, rest));
        let (kind, variables, (filter, body)) = match (call.func_name.as_str(), arguments) {
            ("all", [v, body]) => fold(FoldKind::All, vec![v], (None, body)),
            ("exists", [v, body]) => fold(FoldKind::Exists, vec![v], (None, body)),
            ("exists_one" | "existsOne", [v, body]) => fold(FoldKind::ExistsOne, vec![v], (None, body)),
            ("filter", [v, body]) => fold(FoldKind::Filter, vec![v], (None, body)),
            ("map", [v, body]) => fold(FoldKind::List, vec![v], (None, body)),
            ("map", [v, filter, body]) => fold(FoldKind::List, vec![v], (Some(filter), body)),
            ("all", [k, v, body]) => fold(FoldKind::All, vec![k, v], (None, body)),
            ("exists", [k, v, body]) => fold(FoldKind::Exists, vec![k, v], (None, body)),
            ("existsOne", [k, v, body]) => fold(FoldKind::ExistsOne, vec![k, v], (None, body)),
            ("transformList", [k, v, body]) => fold(FoldKind::List, vec![k, v], (None, body)),
            ("transformList", [k, v, filter, body]) => fold(FoldKind::List, vec![k, v], (Some(filter), body)),
            ("transformMap", [k, v, body]) => fold(FoldKind::Map, vec![k, v], (None, body)),
            ("transformMap", [k, v, filter, body]) => fold(FoldKind::Map, vec![k, v], (Some(filter), body)),
            ("transformMapEntry", [k, v, body]) => fold(FoldKind::Entries, vec![k, v], (None, body)),
            ("transformMapEntry", [k, v, filter, body]) => fold(FoldKind::Entries, vec![k, v], (Some(filter), body)),
            ("optMap" | "optFlatMap", [v, body]) => {
                return Some(self.map_optional(at, target, v, body, call.func_name == "optFlatMap"));
            }
            ("bind", [v, value, body]) if matches!(&target.expr, Expr::Ident(space) if space == "cel") => {
                let (value, kind) = self.check(value);
                let name = self.variable(v);
                let (body, result) = self.within([(name, kind)], |checker| checker.check(body));
                return Some((Code::Bind(Box::new([value, body])), result));
            }
            _ => None,
        }?;
        let names: Vec<String> = variables.iter().map(|v| self.variable(v)).collect();
        Some(self.fold(at, call, target, (kind, names), filter, body))
    }

    /// The name that a macro gives to what it goes through.
    fn variable(&mut self, tree: &IdedExpr) -> String {
        match &tree.expr {
            Expr::Ident(name) => name.clone(),
            _ => {
                self.issue(tree.id, "argument must be a simple name".to_owned());
                String::new()
            }
        }
    }

    fn within<T>(&mut self, locals: impl IntoIterator<Item = (String, Type)>, check: impl FnOnce(&mut Self) -> T) -> T {
        let outside = self.locals.len();
        self.locals.extend(locals);
        let done = check(self);
        self.locals.truncate(outside);
        done
    }

    fn fold(
        &mut self,
        at: u64,
        call: &CallExpr,
        target: &IdedExpr,
        (kind, names): (FoldKind, Vec<String>),
        filter: Option<&IdedExpr>,
        body: &IdedExpr,
    ) -> Checked {
        let (range, over) = self.check(target);
        let (key, value) = match &over {
            Type::List(of) => (Type::Int, of.items.clone()),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let why = "cannot be range of a comprehension (must be list, map, or dynamic)";
                return self.issue(target.id, format!("expression of type '{other}' {why}"));
            }
        };
        let two = names.len() == 2;
        let one = if matches!(over, Type::Map(_)) { key.clone() } else { value.clone() };
        let item = one.clone();
        let kinds = if two { vec![key.clone(), value] } else { vec![one] };
        let ((filter, body), result) = self.within(names.into_iter().zip(kinds), |checker| {
            let filter = filter.map(|filter| {
                let checked = checker.check(filter);
                checker.condition(filter.id, "_?_:_", checked)
            });
            let checked = checker.check(body);
            let result = checked.1.clone();
            let judged = matches!(kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne | FoldKind::Filter);
            let code = match (judged, kind) {
                (true, FoldKind::All) => checker.condition(at, operators::LOGICAL_AND, checked),
                (true, FoldKind::Exists) => checker.condition(at, operators::LOGICAL_OR, checked),
                (true, _) => checker.condition(at, operators::CONDITIONAL, checked),
                (false, _) => checked.0,
            };
            ((filter, code), result)
        });
        let kind_of_result = match kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::List => Type::list(result),
            FoldKind::Filter => Type::list(item),
            FoldKind::Map => Type::map(key, result),
            FoldKind::Entries => match result {
                Type::Map(_) | Type::Dyn => result,
                other => return self.no_overload(at, &call.func_name, true, &[over, other]),
            },
        };
        (Code::Fold(Box::new(Fold { kind, range, two, filter, body })), kind_of_result)
    }

    fn condition(&mut self, at: u64, operator: &str, (code, kind): Checked) -> Code {
        if !Type::Bool.is(&kind) {
            self.no_overload(at, operator, false, &[Type::Bool, kind]);
        }
        code
    }

    fn map_optional(&mut self, at: u64, of: &IdedExpr, v: &IdedExpr, body: &IdedExpr, flat: bool) -> Checked {
        let (of, kind) = self.check(of);
        let inner = match &kind {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn => Type::Dyn,
            _ => return self.no_overload(at, if flat { "optFlatMap" } else { "optMap" }, true, &[kind]),
        };
        let name = self.variable(v);
        let (body, result) = self.within([(name, inner)], |checker| checker.check(body));
        if flat && !Type::optional(Type::Dyn).is(&result) {
            return self.no_overload(at, "optFlatMap", true, &[kind, result]);
        }
        let result = if flat { result } else { Type::optional(result) };
        (Code::MapOptional(Box::new([of, body]), flat), result)
    }

    /// The type of all items of a literal, which have the same.
    fn same(&mut self, at: u64, so_far: &mut Option<Type>, kind: Type, optional: bool) {
        let kind = match (&kind, optional) {
            (Type::Optional(inner), true) => (**inner).clone(),
            _ => kind,
        };
        match so_far {
            None => *so_far = Some(kind),
            Some(known) if known.is(&kind) => *so_far = Some(known.or(&kind)),
            Some(known) => {
                let message = format!("expected type '{known}' but found '{kind}'");
                self.issue(at, message);
            }
        }
    }

    fn list(&mut self, list: &cel::common::ast::ListExpr, mixed: bool) -> Checked {
        let (mut items, mut kind) = (Vec::with_capacity(list.elements.len()), None);
        for (index, element) in list.elements.iter().enumerate() {
            let optional = list.optional_indices.contains(&index);
            let (code, found) = self.check(element);
            self.same(element.id, &mut kind, if mixed { Type::Dyn } else { found }, optional);
            items.push((code, optional));
        }
        (Code::List(items.into()), Type::list(kind.unwrap_or_default()))
    }

    fn map(&mut self, map: &cel::common::ast::MapExpr) -> Checked {
        let (mut entries, mut keys, mut values) = (Vec::with_capacity(map.entries.len()), None, None);
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let ((key, key_kind), (value, kind)) = (self.check(&entry.key), self.check(&entry.value));
            self.same(entry.key.id, &mut keys, key_kind, false);
            self.same(entry.value.id, &mut values, kind, entry.optional);
            entries.push((key, value, entry.optional));
        }
        (Code::Map(entries.into()), Type::map(keys.unwrap_or_default(), values.unwrap_or_default()))
    }

    /// An object of a mutation: `Object{...}`, `Object.spec{...}` or `JSONPatch{...}`.
    fn fields(&mut self, at: u64, object: &StructExpr) -> Checked {
        let name = object.type_name.as_str();
        let known = name == "Object" || name.starts_with("Object.");
        if !self.environment.objects || !(known || name == "JSONPatch") {
            return self.undeclared(at, name);
        }
        let mut entries = Vec::new();
        for entry in &object.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            if !known && !["op", "path", "from", "value"].contains(&field.field.as_str()) {
                return self.issue(entry.id, format!("undefined field '{}'", field.field));
            }
            if let (true, Expr::Struct(inner)) = (known, &field.value.expr) {
                let wanted = format!("{name}.{}", field.field);
                if inner.type_name != wanted {
                    let why = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{}'",
                        field.field, inner.type_name
                    );
                    return self.issue(entry.id, why);
                }
            }
            let (value, _) = self.check(&field.value);
            entries.push((Code::Constant(Val::text(field.field.as_str())), value, field.optional));
        }
        (Code::Map(entries.into()), Type::Dyn)
    }
}

fn constant(literal: &LiteralValue) -> Checked {
    let (value, kind) = match literal {
        LiteralValue::Boolean(flag) => (Val::Bool(*flag.inner()), Type::Bool),
        LiteralValue::Bytes(bytes) => (Val::Bytes(bytes.inner().into()), Type::Bytes),
        LiteralValue::Double(number) => (Val::Double(*number.inner()), Type::Double),
        LiteralValue::Int(number) => (Val::Int(*number.inner()), Type::Int),
        LiteralValue::Null => (Val::Null, Type::Null),
        LiteralValue::String(text) => (Val::text(text.inner()), Type::String),
        LiteralValue::UInt(number) => (Val::Uint(*number.inner()), Type::Uint),
    };
    (Code::Constant(value), kind)
}

/// The qualified name that a chain of selections spells.
fn spelled(tree: &IdedExpr) -> Option<String> {
    match &tree.expr {
        Expr::Ident(name) => Some(name.strip_prefix('.').unwrap_or(name).to_owned()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", spelled(&select.operand)?, select.field)),
        _ => None,
    }
}

impl Code {
    /// Whether it reads a variable.
    pub(super) fn uses(&self, variable: usize) -> bool {
        let any = |codes: &[Self]| codes.iter().any(|code| code.uses(variable));
        match self {
            Self::Variable(at) => *at == variable,
            Self::Constant(_) | Self::Local(_) => false,
            Self::Select(of, ..) => of.uses(variable),
            Self::And(both) | Self::Or(both) | Self::Index(both, _) => any(&**both),
            Self::Bind(both) | Self::MapOptional(both, _) => any(&**both),
            Self::If(parts) => any(&**parts),
            Self::Call(_, arguments) => any(arguments),
            Self::List(items) => items.iter().any(|(item, _)| item.uses(variable)),
            Self::Map(entries) => entries.iter().any(|(key, value, _)| key.uses(variable) || value.uses(variable)),
            Self::Fold(fold) => {
                [&fold.range, &fold.body].into_iter().chain(&fold.filter).any(|code| code.uses(variable))
            }
        }
    }
}
