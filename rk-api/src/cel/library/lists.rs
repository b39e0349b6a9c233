//! Lists and sets: Kubernetes' list library (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#Lists>), cel-go's
//! extension of lists and its sets.

use std::cmp::Ordering;

use super::{
    super::{
        eval::Meter,
        value::{Evaluated, Failure, List, Val},
    },
    Row, compare, operators, strings,
};

pub(super) const ROWS: &[Row] = &[
    (&[".isSorted(list<A>) bool"], |meter, a| {
        let items = list(&a[0])?.to_vec()?;
        for pair in items.windows(2) {
            meter.charge(1)?;
            if compare::order(meter, &pair[0], &pair[1])? == Some(Ordering::Greater) {
                return Ok(Val::Bool(false));
            }
        }
        Ok(Val::Bool(true))
    }),
    (&[".sum(list<int>) int"], |meter, a| sum(meter, &a[0], Val::Int(0))),
    (&[".sum(list<uint>) uint"], |meter, a| sum(meter, &a[0], Val::Uint(0))),
    (&[".sum(list<double>) double"], |meter, a| sum(meter, &a[0], Val::Double(0.0))),
    (&[".sum(list<duration>) duration"], |meter, a| sum(meter, &a[0], Val::Duration(0))),
    (&[".min(list<A>) A"], |meter, a| extreme(meter, &a[0], "min", Ordering::Less)),
    (&[".max(list<A>) A"], |meter, a| extreme(meter, &a[0], "max", Ordering::Greater)),
    (&[".indexOf(list<A>, A) int"], |meter, a| place(meter, list(&a[0])?.to_vec()?.iter().enumerate(), &a[1])),
    (&[".lastIndexOf(list<A>, A) int"], |meter, a| {
        place(meter, list(&a[0])?.to_vec()?.iter().enumerate().rev(), &a[1])
    }),
    (&[".slice(list<A>, int, int) list<A>"], |meter, a| {
        let items = list(&a[0])?.to_vec()?;
        meter.charge(items.len() as u64)?;
        let (start, end) = (strings::int(&a[1])?, strings::int(&a[2])?);
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let part = range.and_then(|(start, end)| items.get(start..end));
        let out = || Failure::new(format!("cannot slice({start}, {end}), list is length {}", items.len()));
        part.map(|part| Val::list(part.to_vec())).ok_or_else(out)
    }),
    (&[".flatten(list<A>) list<dyn>", ".flatten(list<A>, int) list<dyn>"], |meter, a| {
        let levels = a.get(1).map(strings::int).transpose()?.unwrap_or(1);
        if levels < 0 {
            return Err(Failure::new("level must be non-negative"));
        }
        let mut out = Vec::new();
        flatten(meter, list(&a[0])?, levels, &mut out)?;
        Ok(Val::list(out))
    }),
    (&[".distinct(list<A>) list<A>"], |meter, a| {
        let mut out: Vec<Val<'_>> = Vec::new();
        for item in list(&a[0])?.values() {
            let item = item?;
            let mut known = false;
            for other in &out {
                meter.charge(1)?;
                known = known || compare::equal(meter, other, &item)?;
            }
            if !known {
                out.push(item);
            }
        }
        Ok(Val::list(out))
    }),
    (&[".reverse(list<A>) list<A>"], |meter, a| {
        let list = list(&a[0])?;
        meter.charge(list.len() as u64)?;
        Ok(Val::list(list.values().rev().collect::<Result<_, _>>()?))
    }),
    (&[".sort(list<A>) list<A>"], |meter, a| {
        // By insertion, as an order that is none (of NaN) must do no harm.
        let mut sorted: Vec<Val<'_>> = Vec::new();
        for item in list(&a[0])?.values() {
            let item = item?;
            let (mut low, mut high) = (0, sorted.len());
            while low < high {
                let middle = low.midpoint(high);
                meter.charge(1)?;
                match compare::order(meter, &sorted[middle], &item)? {
                    Some(Ordering::Greater) => high = middle,
                    _ => low = middle + 1,
                }
            }
            meter.traverse(sorted.len() - low)?;
            sorted.insert(low, item);
        }
        Ok(Val::list(sorted))
    }),
    (&["lists.range(int) list<int>"], |meter, a| {
        let count = strings::int(&a[0])?;
        meter.charge(count.max(0).unsigned_abs())?;
        Ok(Val::list((0..count).map(Val::Int).collect()))
    }),
    (&["sets.contains(list<A>, list<A>) bool"], |meter, a| subset(meter, list(&a[1])?, list(&a[0])?).map(Val::Bool)),
    (&["sets.equivalent(list<A>, list<A>) bool"], |meter, a| {
        let (a, b) = (list(&a[0])?, list(&a[1])?);
        Ok(Val::Bool(subset(meter, a, b)? && subset(meter, b, a)?))
    }),
    (&["sets.intersects(list<A>, list<A>) bool"], |meter, a| {
        for item in list(&a[0])?.values() {
            if compare::contains(meter, list(&a[1])?, &item?)? {
                return Ok(Val::Bool(true));
            }
        }
        Ok(Val::Bool(false))
    }),
];

fn list<'v, 'a>(value: &'v Val<'a>) -> Result<&'v List<'a>, Failure> {
    match value {
        Val::List(list) => Ok(list),
        _ => Err(Failure::overload()),
    }
}

/// The sum of all items; `none` if there are none.
fn sum<'a>(meter: &mut Meter<'_>, value: &Val<'a>, none: Val<'a>) -> Evaluated<'a> {
    let mut sum: Option<Val<'a>> = None;
    for item in list(value)?.values() {
        meter.charge(1)?;
        let item = item?;
        sum = Some(match sum {
            Some(sum) => operators::add(meter, &[sum, item])?,
            None => item,
        });
    }
    Ok(sum.unwrap_or(none))
}

fn extreme<'a>(meter: &mut Meter<'_>, value: &Val<'a>, name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut best: Option<Val<'a>> = None;
    for item in list(value)?.values() {
        meter.charge(1)?;
        let item = item?;
        let better = match &best {
            Some(best) => compare::order(meter, &item, best)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| Failure::new(format!("{name} called on empty list")))
}

fn place<'v, 'a: 'v>(
    meter: &mut Meter<'_>,
    mut items: impl Iterator<Item = (usize, &'v Val<'a>)>,
    wanted: &Val<'a>,
) -> Evaluated<'a> {
    let found = items.find_map(|(at, item)| match meter.charge(1).and_then(|()| compare::equal(meter, item, wanted)) {
        Ok(true) => Some(Ok(Val::Int(at as i64))),
        Ok(false) => None,
        Err(failure) => Some(Err(failure)),
    });
    found.unwrap_or(Ok(Val::Int(-1)))
}

fn flatten<'a>(meter: &mut Meter<'_>, list: &List<'a>, levels: i64, out: &mut Vec<Val<'a>>) -> Result<(), Failure> {
    for item in list.values() {
        meter.charge(1)?;
        match item? {
            Val::List(inner) if levels > 0 => flatten(meter, &inner, levels - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn subset(meter: &mut Meter<'_>, part: &List<'_>, whole: &List<'_>) -> Result<bool, Failure> {
    for item in part.values() {
        if !compare::contains(meter, whole, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The values of those optionals that have one.
pub(super) fn unwrapped<'a>(meter: &mut Meter<'_>, value: &Val<'a>) -> Evaluated<'a> {
    let mut out = Vec::new();
    for item in list(value)?.values() {
        meter.charge(1)?;
        match item? {
            Val::Optional(None) => {}
            Val::Optional(Some(value)) => out.push(Val::clone(&value)),
            _ => return Err(Failure::overload()),
        }
    }
    Ok(Val::list(out))
}
