//! Regular expressions: `matches`, and Kubernetes' `find` and `findAll`.

use std::{borrow::Cow, sync::Arc};

use regex::Regex;

use super::{
    super::{
        eval::Meter,
        value::{Evaluated, Failure, Other, Val},
    },
    Row, strings,
};

/// Memory that a compiled pattern may take.
const SIZE: usize = 1 << 20;

pub(super) const ROWS: &[Row] = &[
    (&[".matches(string, string) bool", "matches(string, string) bool"], |meter, a| {
        let (text, pattern) = prepare(meter, a)?;
        Ok(Val::Bool(pattern.is_match(text)))
    }),
    (&[".find(string, string) string"], |meter, a| {
        let (text, pattern) = prepare(meter, a)?;
        Ok(Val::text(pattern.find(text).map_or("", |found| found.as_str())))
    }),
    (&[".findAll(string, string) list<string>", ".findAll(string, string, int) list<string>"], |meter, a| {
        let (text, pattern) = prepare(meter, a)?;
        let most = a.get(2).map(strings::int).transpose()?.unwrap_or(-1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let found: Vec<_> = pattern.find_iter(text).take(most).map(|found| Val::text(found.as_str())).collect();
        meter.charge(found.len() as u64)?;
        Ok(Val::list(found))
    }),
];

/// A pattern that is compiled once and for all.
pub(in super::super) fn compiled(pattern: &str) -> Evaluated<'static> {
    Ok(Val::Other(Arc::new(Other::Pattern(compile(pattern)?))))
}

fn compile(pattern: &str) -> Result<Regex, Failure> {
    regex::RegexBuilder::new(pattern).size_limit(SIZE).dfa_size_limit(SIZE).build().map_err(|error| {
        let why = error.to_string();
        Failure::new(format!("error parsing regexp: {}", why.lines().last().unwrap_or_default().trim()))
    })
}

/// The text and the pattern, and the cost of going through the one with the other.
fn prepare<'v>(meter: &mut Meter<'_>, a: &'v [Val<'_>]) -> Result<(&'v str, Cow<'v, Regex>), Failure> {
    let text = strings::text(&a[0])?;
    let steps = (1 + text.len() as u64).div_ceil(10);
    let mut charge = |pattern: &str| meter.charge(steps.saturating_mul((pattern.len() as u64).div_ceil(4)));
    match &a[1] {
        Val::Other(other) => match &**other {
            Other::Pattern(pattern) => {
                charge(pattern.as_str())?;
                Ok((text, Cow::Borrowed(pattern)))
            }
            _ => Err(Failure::overload()),
        },
        pattern => {
            let pattern = strings::text(pattern)?;
            charge(pattern)?;
            Ok((text, Cow::Owned(compile(pattern)?)))
        }
    }
}
