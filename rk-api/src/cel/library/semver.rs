//! Kubernetes' library of semantic versions (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#SemverLib>).

use std::cmp::Ordering;

use super::{
    super::{
        eval::Meter,
        value::{Failure, Other, Val},
    },
    Row, strings,
};

/// A version; what is behind a `+` does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Semver {
    numbers: [u64; 3],
    /// Identifiers behind the dash.
    stage: Vec<Identifier>,
}

/// Numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

pub(super) const ROWS: &[Row] = &[
    (&["isSemver(string) bool", "isSemver(string, bool) bool"], |meter, a| Ok(Val::Bool(read(meter, a)?.is_ok()))),
    (&["semver(string) semver", "semver(string, bool) semver"], |meter, a| {
        Ok(Val::other(Other::Semver(read(meter, a)??)))
    }),
    (&[".major(semver) int"], |_, a| Ok(Val::Int(of(&a[0])?.numbers[0] as i64))),
    (&[".minor(semver) int"], |_, a| Ok(Val::Int(of(&a[0])?.numbers[1] as i64))),
    (&[".patch(semver) int"], |_, a| Ok(Val::Int(of(&a[0])?.numbers[2] as i64))),
    (&[".isGreaterThan(semver, semver) bool"], |_, a| Ok(Val::Bool(compare(a)? == Ordering::Greater))),
    (&[".isLessThan(semver, semver) bool"], |_, a| Ok(Val::Bool(compare(a)? == Ordering::Less))),
    (&[".compareTo(semver, semver) int"], |_, a| Ok(Val::Int(compare(a)? as i64))),
];

fn of<'v>(value: &'v Val<'_>) -> Result<&'v Semver, Failure> {
    match value.as_other()? {
        Other::Semver(version) => Ok(version),
        _ => Err(Failure::overload()),
    }
}

fn compare(a: &[Val<'_>]) -> Result<Ordering, Failure> {
    let (a, b) = (of(&a[0])?, of(&a[1])?);
    // A version is behind all of its stages.
    let stages = match (a.stage.is_empty(), b.stage.is_empty()) {
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ => a.stage.cmp(&b.stage),
    };
    Ok(a.numbers.cmp(&b.numbers).then(stages))
}

fn read(meter: &mut Meter<'_>, a: &[Val<'_>]) -> Result<Result<Semver, Failure>, Failure> {
    meter.traverse(a[0].size())?;
    let text = strings::text(&a[0])?;
    let lenient = matches!(a.get(1), Some(Val::Bool(true)));
    Ok(parse(text, lenient).ok_or_else(|| Failure::new(format!("invalid semantic version {text:?}"))))
}

impl Semver {
    /// Reads a version as it has to be written.
    pub(crate) fn read(text: &str) -> Option<Self> {
        parse(text, false)
    }
}

/// Reads a version; `lenient` is to forgive a `v` in front, missing parts and leading zeros.
fn parse(text: &str, lenient: bool) -> Option<Semver> {
    let text = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, stage) = text.split_once('-').map_or((text, None), |(core, stage)| (core, Some(stage)));
    let number = |digits: &str| {
        let digits = if lenient {
            Some(digits.trim_start_matches('0')).filter(|d| !d.is_empty()).unwrap_or("0")
        } else {
            digits
        };
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        if plain { digits.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok()) } else { None }
    };
    let mut numbers = core.split('.').map(number).collect::<Option<Vec<_>>>()?;
    if lenient {
        numbers.resize(numbers.len().max(3), 0);
    }
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !build.is_none_or(|build| build.split('.').all(word)) {
        return None;
    }
    let identifier = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true if text == "0" || !text.starts_with('0') => text.parse().ok().map(Identifier::Number),
        true => None,
        false => word(text).then(|| Identifier::Word(text.to_owned())),
    };
    let stage = stage.map_or(Some(Vec::new()), |stage| stage.split('.').map(identifier).collect())?;
    Some(Semver { numbers: numbers.try_into().ok()?, stage })
}
