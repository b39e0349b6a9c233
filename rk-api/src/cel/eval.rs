//! The evaluation of checked expressions, which counts what it costs and stops at a limit.
//!
//! Costs are cel-go's: 1 to read a variable, a field or an item and to call a function, but for functions that go through
//! texts or lists and cost by their size ([`Meter::traverse`]), 10 to make a list and 30 to make a map. A turn of a macro costs what
//! cel-go's expansion of it does.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    check::{Code, Fold, FoldKind, Wanted},
    library::{Overload, authorizer::Answers, compare},
    value::{Evaluated, Failure, Key, List, Map, Val},
};

/// The cost of making a list, and of making a map.
const LIST: u64 = 10;
const MAP: u64 = 30;

/// Where the values of variables come from.
pub(crate) trait Scope<'a> {
    /// The value of the variable that was declared at this place.
    ///
    /// # Errors
    /// It has none; or it is an expression itself and its evaluation fails.
    fn get(&self, at: usize, meter: &mut Meter<'_>) -> Result<Val<'a>, Failure>;
}

impl<'a, S: Scope<'a> + ?Sized> Scope<'a> for &S {
    fn get(&self, at: usize, meter: &mut Meter<'_>) -> Result<Val<'a>, Failure> {
        (**self).get(at, meter)
    }
}

impl<'a> Scope<'a> for [Val<'a>] {
    fn get(&self, at: usize, _meter: &mut Meter<'_>) -> Result<Val<'a>, Failure> {
        self.get(at).cloned().ok_or_else(|| Failure::new("no such attribute"))
    }
}

/// Counts costs, and knows what authorizers have said.
pub(crate) struct Meter<'m> {
    limit: u64,
    spent: u64,
    pub(super) answers: &'m Answers,
}

impl<'m> Meter<'m> {
    /// A meter that stops at a cost.
    pub(crate) fn new(limit: u64, answers: &'m Answers) -> Self {
        Self { limit, spent: 0, answers }
    }

    /// What was spent so far.
    pub(crate) fn spent(&self) -> u64 {
        self.spent
    }

    pub(super) fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Failure::Cost) } else { Ok(()) }
    }

    /// Going once through so many characters, of which ten cost 1.
    pub(super) fn traverse(&mut self, size: usize) -> Result<(), Failure> {
        self.charge((size as u64).div_ceil(10))
    }
}

/// Evaluates code.
pub(super) fn evaluate<'a>(code: &'a Code, scope: &dyn Scope<'a>, meter: &mut Meter<'_>) -> Evaluated<'a> {
    Run { scope, meter, locals: Vec::new() }.value(code)
}

struct Run<'a, 'r, 'm> {
    scope: &'r dyn Scope<'a>,
    meter: &'r mut Meter<'m>,
    locals: Vec<Val<'a>>,
}

impl<'a> Run<'a, '_, '_> {
    fn value(&mut self, code: &'a Code) -> Evaluated<'a> {
        match code {
            Code::Constant(value) => Ok(value.clone()),
            Code::Variable(at) => {
                self.meter.charge(1)?;
                self.scope.get(*at, self.meter)
            }
            Code::Local(at) => {
                self.meter.charge(1)?;
                Ok(self.locals[*at].clone())
            }
            Code::Select(of, name, wanted) => self.select(of, name, *wanted),
            Code::And(both) => self.logic(both, false),
            Code::Or(both) => self.logic(both, true),
            Code::If(parts) => {
                let [test, yes, no] = &**parts;
                if self.test(test)? { self.value(yes) } else { self.value(no) }
            }
            Code::Index(parts, wanted) => self.index(&parts[0], &parts[1], *wanted),
            Code::Call(overloads, arguments) => self.call(overloads, arguments),
            Code::List(items) => self.list(items),
            Code::Map(entries) => self.map(entries),
            Code::Fold(fold) => self.fold(fold),
            Code::Bind(parts) => {
                let value = self.value(&parts[0])?;
                self.with([value], &parts[1])
            }
            Code::MapOptional(parts, flat) => match self.value(&parts[0])? {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(value)) => {
                    let made = self.with([Val::clone(&value)], &parts[1])?;
                    if *flat { Ok(made) } else { Ok(Val::some(made)) }
                }
                _ => Err(Failure::overload()),
            },
        }
    }

    /// Code under more variables.
    fn with<const N: usize>(&mut self, values: [Val<'a>; N], code: &'a Code) -> Evaluated<'a> {
        let outside = self.locals.len();
        self.locals.extend(values);
        let done = self.value(code);
        self.locals.truncate(outside);
        done
    }

    fn test(&mut self, code: &'a Code) -> Result<bool, Failure> {
        match self.value(code)? {
            Val::Bool(flag) => Ok(flag),
            _ => Err(Failure::overload()),
        }
    }

    /// Either side decides alone if it is `decides`, even if the other one fails.
    fn logic(&mut self, both: &'a [Code; 2], decides: bool) -> Evaluated<'a> {
        let left = self.test(&both[0]);
        match left {
            Ok(flag) if flag == decides => return Ok(Val::Bool(decides)),
            Err(failure @ (Failure::Cost | Failure::Ask(_))) => return Err(failure),
            _ => {}
        }
        match self.test(&both[1]) {
            Ok(flag) if flag == decides => Ok(Val::Bool(decides)),
            Err(failure @ (Failure::Cost | Failure::Ask(_))) => Err(failure),
            right => left.and(right).map(Val::Bool),
        }
    }

    fn select(&mut self, of: &'a Code, name: &'a str, wanted: Wanted) -> Evaluated<'a> {
        let holder = self.value(of)?;
        self.meter.charge(1)?;
        let (holder, chained) = match holder {
            Val::Optional(None) => return Ok(absent(wanted)),
            Val::Optional(Some(inner)) => (Val::clone(&inner), true),
            other => (other, false),
        };
        let found = match &holder {
            Val::Map(map) => map.field(name),
            Val::Null if wanted == Wanted::Optional => None,
            _ => return Err(Failure::overload()),
        };
        deliver(found, wanted, chained, || Failure::no_key(name))
    }

    fn index(&mut self, of: &'a Code, index: &'a Code, wanted: Wanted) -> Evaluated<'a> {
        let holder = self.value(of)?;
        let index = self.value(index)?;
        self.meter.charge(1)?;
        let (holder, chained) = match holder {
            Val::Optional(None) => return Ok(absent(wanted)),
            Val::Optional(Some(inner)) => (Val::clone(&inner), true),
            other => (other, false),
        };
        let shown = || compare::show(&index);
        match &holder {
            Val::Map(map) => deliver(map.get(&index), wanted, chained, || Failure::no_key(&shown())),
            Val::List(list) => {
                let number = match &index {
                    Val::Int(number) => i128::from(*number),
                    Val::Uint(number) => i128::from(*number),
                    Val::Double(number) if number.fract() == 0.0 => *number as i128,
                    _ => return Err(Failure::overload()),
                };
                let at = usize::try_from(number).ok().filter(|at| *at < list.len());
                let out = || Failure::new(format!("index out of bounds: {number}"));
                deliver(at.map(|at| list.at(at)), wanted, chained, out)
            }
            Val::Null if wanted == Wanted::Optional => Ok(Val::Optional(None)),
            _ => Err(Failure::overload()),
        }
    }

    fn call(&mut self, overloads: &'a [&'static Overload], arguments: &'a [Code]) -> Evaluated<'a> {
        let values = arguments.iter().map(|code| self.value(code)).collect::<Result<Vec<_>, _>>()?;
        let fits = |overload: &&&'static Overload| {
            overload.parameters.iter().zip(&values).all(|(kind, value)| value.fits(kind))
        };
        let overload = overloads.iter().find(fits).ok_or_else(Failure::overload)?;
        let before = self.meter.spent;
        let made = (overload.call)(self.meter, &values);
        // What does not count by itself costs 1.
        if self.meter.spent == before {
            self.meter.charge(1)?;
        }
        made
    }

    fn list(&mut self, items: &'a [(Code, bool)]) -> Evaluated<'a> {
        self.meter.charge(LIST)?;
        let mut list = Vec::with_capacity(items.len());
        for (code, optional) in items {
            match (self.value(code)?, optional) {
                (Val::Optional(None), true) => {}
                (Val::Optional(Some(value)), true) => list.push(Val::clone(&value)),
                (value, _) => list.push(value),
            }
        }
        Ok(Val::list(list))
    }

    fn map(&mut self, entries: &'a [(Code, Code, bool)]) -> Evaluated<'a> {
        self.meter.charge(MAP)?;
        let mut map = BTreeMap::new();
        for (key, code, optional) in entries {
            let key = self.value(key)?.key()?;
            let value = match (self.value(code)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(value)), true) => Val::clone(&value),
                (value, _) => value,
            };
            insert(&mut map, key, value)?;
        }
        Ok(Val::Map(Map::Made(Arc::new(map))))
    }

    fn fold(&mut self, fold: &'a Fold) -> Evaluated<'a> {
        let range = self.value(&fold.range)?;
        match &range {
            Val::List(list) => {
                let items = (0..list.len()).map(|at| Ok((Val::Int(at as i64), list.at(at)?)));
                self.turns(fold, items, |(_, item)| item)
            }
            Val::Map(map) => {
                let keys = map.keys();
                let entries = keys.into_iter().map(|key| {
                    let value = if fold.two { map.get(&key).unwrap_or(Ok(Val::Null))? } else { Val::Null };
                    Ok((key, value))
                });
                self.turns(fold, entries, |(key, _)| key)
            }
            _ => Err(Failure::overload()),
        }
    }

    /// Goes through entries; `one` is what a macro with one variable sees of them.
    fn turns(
        &mut self,
        fold: &'a Fold,
        entries: impl Iterator<Item = Result<(Val<'a>, Val<'a>), Failure>>,
        one: impl Fn((Val<'a>, Val<'a>)) -> Val<'a>,
    ) -> Evaluated<'a> {
        let mut made = Made::default();
        for entry in entries {
            self.meter.charge(3)?;
            let (key, value) = entry?;
            let outside = self.locals.len();
            if fold.two {
                self.locals.extend([key.clone(), value.clone()]);
            } else {
                self.locals.push(one((key.clone(), value.clone())));
            }
            let done = self.turn(fold, &mut made, key);
            self.locals.truncate(outside);
            if done? {
                break;
            }
        }
        made.finish(fold.kind)
    }

    /// One turn; whether the outcome is known with it.
    fn turn(&mut self, fold: &'a Fold, made: &mut Made<'a>, key: Val<'a>) -> Result<bool, Failure> {
        if let Some(filter) = &fold.filter
            && !self.test(filter)?
        {
            return Ok(false);
        }
        match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                let decides = fold.kind == FoldKind::Exists;
                match self.test(&fold.body) {
                    Ok(flag) if flag == decides => {
                        made.decided = true;
                        return Ok(true);
                    }
                    Ok(_) => {}
                    Err(failure @ (Failure::Cost | Failure::Ask(_))) => return Err(failure),
                    Err(failure) => {
                        made.failure.get_or_insert(failure);
                    }
                }
            }
            FoldKind::ExistsOne => made.count += usize::from(self.test(&fold.body)?),
            FoldKind::Filter => {
                if self.test(&fold.body)? {
                    self.meter.charge(LIST)?;
                    made.list.push(self.locals.last().cloned().unwrap_or(Val::Null));
                }
            }
            FoldKind::List => {
                self.meter.charge(LIST)?;
                made.list.push(self.value(&fold.body)?);
            }
            FoldKind::Map => {
                self.meter.charge(LIST)?;
                let value = self.value(&fold.body)?;
                insert(&mut made.map, key.key()?, value)?;
            }
            FoldKind::Entries => match self.value(&fold.body)? {
                Val::Map(map) => {
                    for key in map.keys() {
                        self.meter.charge(1)?;
                        let value = map.get(&key).unwrap_or(Ok(Val::Null))?;
                        insert(&mut made.map, key.key()?, value)?;
                    }
                }
                _ => return Err(Failure::overload()),
            },
        }
        Ok(false)
    }
}

/// What the turns of a macro made so far.
#[derive(Default)]
struct Made<'a> {
    decided: bool,
    failure: Option<Failure>,
    count: usize,
    list: Vec<Val<'a>>,
    map: BTreeMap<Key, Val<'a>>,
}

impl<'a> Made<'a> {
    fn finish(self, kind: FoldKind) -> Evaluated<'a> {
        match (kind, self.failure) {
            (FoldKind::All, _) if self.decided => Ok(Val::Bool(false)),
            (FoldKind::Exists, _) if self.decided => Ok(Val::Bool(true)),
            (_, Some(failure)) => Err(failure),
            (FoldKind::All, None) => Ok(Val::Bool(true)),
            (FoldKind::Exists, None) => Ok(Val::Bool(false)),
            (FoldKind::ExistsOne, None) => Ok(Val::Bool(self.count == 1)),
            (FoldKind::List | FoldKind::Filter, None) => Ok(Val::List(List::Made(self.list.into()))),
            (FoldKind::Map | FoldKind::Entries, None) => Ok(Val::Map(Map::Made(Arc::new(self.map)))),
        }
    }
}

fn insert<'a>(map: &mut BTreeMap<Key, Val<'a>>, key: Key, value: Val<'a>) -> Result<(), Failure> {
    if map.contains_key(&key) {
        return Err(Failure::new(format!("failed with repeated key: {key}")));
    }
    map.insert(key, value);
    Ok(())
}

/// What is wanted of an optional that is none.
fn absent<'a>(wanted: Wanted) -> Val<'a> {
    if wanted == Wanted::Presence { Val::Bool(false) } else { Val::Optional(None) }
}

/// What was found, as it is wanted.
fn deliver<'a>(
    found: Option<Evaluated<'a>>,
    wanted: Wanted,
    chained: bool,
    missing: impl FnOnce() -> Failure,
) -> Evaluated<'a> {
    match (wanted, found) {
        (Wanted::Presence, found) => Ok(Val::Bool(found.is_some())),
        (Wanted::Value, Some(value)) if !chained => value,
        (_, Some(value)) => value.map(Val::some),
        (Wanted::Value, None) if !chained => Err(missing()),
        (_, None) => Ok(Val::Optional(None)),
    }
}
