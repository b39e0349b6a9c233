//! Timestamps and durations.

use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};

use super::{
    super::value::{Evaluated, Failure, Val},
    Row, operators, strings,
};

pub(super) const ROWS: &[Row] = &[
    (
        &["timestamp(string) timestamp", "timestamp(int) timestamp", "timestamp(timestamp) timestamp"],
        |meter, a| match &a[0] {
            Val::String(text) => {
                meter.traverse(text.len())?;
                timestamp(text).map(Val::Timestamp)
            }
            Val::Int(seconds) => Timestamp::from_second(*seconds)
                .ok()
                .and_then(in_range)
                .map(Val::Timestamp)
                .ok_or_else(|| out("timestamp")),
            Val::Timestamp(_) => Ok(a[0].clone()),
            _ => Err(Failure::overload()),
        },
    ),
    (&["duration(string) duration", "duration(duration) duration"], |meter, a| match &a[0] {
        Val::String(text) => {
            meter.traverse(text.len())?;
            duration(text).map(Val::Duration)
        }
        Val::Duration(_) => Ok(a[0].clone()),
        _ => Err(Failure::overload()),
    }),
    (&[".getFullYear(timestamp) int", ".getFullYear(timestamp, string) int"], |_, a| part(a, |t| t.year().into())),
    (&[".getMonth(timestamp) int", ".getMonth(timestamp, string) int"], |_, a| part(a, |t| i64::from(t.month()) - 1)),
    (&[".getDate(timestamp) int", ".getDate(timestamp, string) int"], |_, a| part(a, |t| t.day().into())),
    (&[".getDayOfMonth(timestamp) int", ".getDayOfMonth(timestamp, string) int"], |_, a| {
        part(a, |t| i64::from(t.day()) - 1)
    }),
    (&[".getDayOfWeek(timestamp) int", ".getDayOfWeek(timestamp, string) int"], |_, a| {
        part(a, |t| t.weekday().to_sunday_zero_offset().into())
    }),
    (&[".getDayOfYear(timestamp) int", ".getDayOfYear(timestamp, string) int"], |_, a| {
        part(a, |t| i64::from(t.day_of_year()) - 1)
    }),
    (&[".getHours(timestamp) int", ".getHours(timestamp, string) int", ".getHours(duration) int"], |_, a| {
        match &a[0] {
            Val::Duration(nanos) => Ok(Val::Int(nanos / 3_600_000_000_000)),
            _ => part(a, |t| t.hour().into()),
        }
    }),
    (
        &[".getMinutes(timestamp) int", ".getMinutes(timestamp, string) int", ".getMinutes(duration) int"],
        |_, a| match &a[0] {
            Val::Duration(nanos) => Ok(Val::Int(nanos / 60_000_000_000)),
            _ => part(a, |t| t.minute().into()),
        },
    ),
    (
        &[".getSeconds(timestamp) int", ".getSeconds(timestamp, string) int", ".getSeconds(duration) int"],
        |_, a| match &a[0] {
            Val::Duration(nanos) => Ok(Val::Int(nanos / 1_000_000_000)),
            _ => part(a, |t| t.second().into()),
        },
    ),
    (
        &[
            ".getMilliseconds(timestamp) int",
            ".getMilliseconds(timestamp, string) int",
            ".getMilliseconds(duration) int",
        ],
        |_, a| match &a[0] {
            Val::Duration(nanos) => Ok(Val::Int(nanos / 1_000_000 % 1000)),
            _ => part(a, |t| t.millisecond().into()),
        },
    ),
];

fn part<'a>(a: &[Val<'a>], read: impl Fn(&Zoned) -> i64) -> Evaluated<'a> {
    let Val::Timestamp(at) = &a[0] else { return Err(Failure::overload()) };
    let zone = match a.get(1) {
        Some(name) => zone(strings::text(name)?)?,
        None => TimeZone::UTC,
    };
    Ok(Val::Int(read(&at.to_zoned(zone))))
}

/// A time zone by name, or by its offset from UTC as in `-08:00`.
fn zone(name: &str) -> Result<TimeZone, Failure> {
    let unknown = || Failure::new(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.split_once(':') {
        let (sign, digits) = hours.strip_prefix('-').map_or((1, hours), |digits| (-1, digits));
        let hours: i32 = digits.strip_prefix('+').unwrap_or(digits).parse().map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
            return Err(unknown());
        }
        let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(name).map_err(|_| unknown())
}

/// The years that CEL knows; those of `Timestamp` end a day earlier.
fn in_range(time: Timestamp) -> Option<Timestamp> {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    (FIRST..=LAST).contains(&time.as_second()).then_some(time)
}

fn out(what: &str) -> Failure {
    operators::overflow(what)
}

/// A time moved by some nanoseconds.
pub(super) fn moved(time: Timestamp, nanos: i64) -> Result<Timestamp, Failure> {
    let moved = Timestamp::from_nanosecond(time.as_nanosecond() + i128::from(nanos));
    moved.ok().and_then(in_range).ok_or_else(|| out("timestamp"))
}

/// Reads RFC 3339, or a date.
pub(in super::super) fn timestamp(text: &str) -> Result<Timestamp, Failure> {
    let parsed = match text.len() {
        10 => {
            text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map(|zoned| zoned.timestamp())
        }
        _ => text.parse().ok(),
    };
    parsed.and_then(in_range).ok_or_else(|| Failure::new(format!("invalid timestamp {text:?}")))
}

/// Reads a duration as Go writes it, such as `1h30m` or `-1.5s`.
pub(in super::super) fn duration(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::new(format!("time: invalid duration {text:?}"));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(wrong());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit: i128 = match &after[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        let number = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<i64>().map_err(|_| wrong()) };
        let fraction = &fraction[..fraction.len().min(18)];
        let part = i128::from(number(fraction)?) * unit / 10_i128.pow(fraction.len() as u32);
        total += i128::from(number(whole)?) * unit + part;
        if total > i128::from(i64::MAX) + 1 {
            return Err(wrong());
        }
        rest = &after[end..];
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| wrong())
}

/// RFC 3339 in UTC, with as many digits of the second as there are.
pub(in super::super) fn write_timestamp(time: Timestamp) -> String {
    time.to_string()
}

/// Seconds with a fraction, as cel-go writes durations: `90s`, `1.500s`.
pub(in super::super) fn write_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = format!("{rest:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}s"),
        digits => format!("{sign}{seconds}.{digits}s"),
    }
}
