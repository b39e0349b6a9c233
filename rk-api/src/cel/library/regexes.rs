//! Regular expressions: `matches`, and Kubernetes' `find` and `findAll`.
//!
//! Constant patterns are compiled with their expression. Others are known only when they are evaluated, mostly the same
//! ones again and again: those that were used last are kept.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
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
/// Memory that one may take to be kept.
const SMALL: usize = 256 << 10;
/// The longest pattern that is kept.
const LONG: usize = 1024;
/// So many patterns that are no constants are kept, and as many more that were used before them.
const KEPT: usize = 32;

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
        let before = meter.spent();
        let (text, pattern) = prepare(meter, a)?;
        let most = a.get(2).map(strings::int).transpose()?.unwrap_or(-1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let found: Vec<_> = pattern.find_iter(text).take(most).map(|found| Val::text(found.as_str())).collect();
        // A short pattern that is found everywhere costs next to nothing in Kubernetes, whatever is made of it.
        meter.charge((found.len() as u64).saturating_sub(meter.spent() - before))?;
        Ok(Val::list(found))
    }),
];

/// What patterns became, by their text, in two generations: the older one goes when the younger one is full. Of a large one only that it
/// is large is kept.
#[derive(Default)]
struct Known {
    young: HashMap<String, Option<Arc<Regex>>>,
    old: HashMap<String, Option<Arc<Regex>>>,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Known {
    fn get(&mut self, pattern: &str) -> Option<Option<Arc<Regex>>> {
        if let Some(known) = self.young.get(pattern) {
            return Some(known.clone());
        }
        let (pattern, known) = self.old.remove_entry(pattern)?;
        self.keep(pattern, known.clone());
        Some(known)
    }

    fn keep(&mut self, pattern: String, made: Option<Arc<Regex>>) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pattern, made);
    }
}

/// A pattern that is compiled once and for all.
pub(in super::super) fn compiled(pattern: &str) -> Evaluated<'static> {
    Ok(Val::Other(Arc::new(Other::Pattern(compile(pattern, SIZE)?))))
}

/// A pattern that comes with the values. A large one is compiled each time: it is anybody's, and would take its memory for as long
/// as no others come.
fn known(pattern: &str) -> Result<Arc<Regex>, Failure> {
    if pattern.len() > LONG {
        return compile(pattern, SIZE);
    }
    let known = KNOWN.lock().get(pattern);
    match known {
        Some(Some(made)) => Ok(made),
        Some(None) => compile(pattern, SIZE),
        None => {
            let small = compile(pattern, SMALL).ok();
            KNOWN.lock().keep(pattern.to_owned(), small.clone());
            small.map_or_else(|| compile(pattern, SIZE), Ok)
        }
    }
}

/// Compiles a pattern that takes at most so much memory.
fn compile(pattern: &str, size: usize) -> Result<Arc<Regex>, Failure> {
    let made = regex::RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(size).build();
    made.map(Arc::new).map_err(|error| {
        let why = error.to_string();
        Failure::new(format!("error parsing regexp: {}", why.lines().last().unwrap_or_default().trim()))
    })
}

/// The text and the pattern, and the cost of going through the one with the other (cel-go's of `matches`, apiserver's of
/// the others): characters of the one by those of the other.
fn prepare<'v>(meter: &mut Meter<'_>, a: &'v [Val<'_>]) -> Result<(&'v str, Arc<Regex>), Failure> {
    let text = strings::text(&a[0])?;
    let count = |text: &str| text.chars().count() as u64;
    let steps = (1 + count(text)).div_ceil(10);
    let mut charge = |pattern: &str| meter.charge(steps.saturating_mul(count(pattern).div_ceil(4)));
    match &a[1] {
        Val::Other(other) => match &**other {
            Other::Pattern(pattern) => {
                charge(pattern.as_str())?;
                Ok((text, Arc::clone(pattern)))
            }
            _ => Err(Failure::overload()),
        },
        pattern => {
            let pattern = strings::text(pattern)?;
            charge(pattern)?;
            Ok((text, known(pattern)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_compiled_once_and_not_all_kept() {
        let first = known("^kept-[a-z]+$").unwrap();
        assert!(Arc::ptr_eq(&first, &known("^kept-[a-z]+$").unwrap()), "compiled twice");
        let mut kept = Known::default();
        for n in 0..10 * KEPT {
            kept.keep(n.to_string(), Some(compile("a", SIZE).unwrap()));
            assert!(kept.get("0").is_some(), "one that is used stays");
            assert!(kept.young.len() + kept.old.len() <= 2 * KEPT);
        }
        assert!(kept.get("1").is_none());
        assert_eq!(known("(").unwrap_err(), known("(").unwrap_err());
        // Long, and large.
        for pattern in ["a".repeat(LONG + 1), r"\w{10}".to_owned()] {
            let first = known(&pattern).unwrap();
            assert!(!Arc::ptr_eq(&first, &known(&pattern).unwrap()), "kept: {pattern}");
        }
    }
}
