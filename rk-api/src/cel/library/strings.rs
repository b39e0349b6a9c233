//! Strings: the standard functions and cel-go's extension (<https://pkg.go.dev/github.com/google/cel-go/ext#Strings>).

use super::{
    super::{
        eval::Meter,
        value::{Evaluated, Failure, List, Text, Val},
    },
    Row, compare, convert, time,
};

pub(super) const ROWS: &[Row] = &[
    (&[".contains(string, string) bool"], |meter, a| {
        let (text, part) = (text(&a[0])?, text(&a[1])?);
        meter.charge((text.len() as u64).div_ceil(10) * (part.len() as u64).div_ceil(10))?;
        Ok(Val::Bool(text.contains(part)))
    }),
    (&[".startsWith(string, string) bool"], |meter, a| {
        meter.traverse(a[1].size())?;
        Ok(Val::Bool(text(&a[0])?.starts_with(text(&a[1])?)))
    }),
    (&[".endsWith(string, string) bool"], |meter, a| {
        meter.traverse(a[1].size())?;
        Ok(Val::Bool(text(&a[0])?.ends_with(text(&a[1])?)))
    }),
    (&[".charAt(string, int) string"], |meter, a| {
        meter.traverse(a[0].size())?;
        let (text, index) = (text(&a[0])?, int(&a[1])?);
        let count = text.chars().count();
        let at = usize::try_from(index).ok().filter(|at| *at <= count);
        let at = at.ok_or_else(|| Failure::new(format!("index out of range: {index}")))?;
        Ok(text.chars().nth(at).map_or(convert::fixed(""), |c| Val::text(c.to_string())))
    }),
    (&[".indexOf(string, string) int", ".indexOf(string, string, int) int"], |meter, a| find(meter, a, false)),
    (&[".lastIndexOf(string, string) int", ".lastIndexOf(string, string, int) int"], |meter, a| find(meter, a, true)),
    (&[".lowerAscii(string) string"], |meter, a| map(meter, &a[0], str::to_ascii_lowercase)),
    (&[".upperAscii(string) string"], |meter, a| map(meter, &a[0], str::to_ascii_uppercase)),
    (&[".trim(string) string"], |meter, a| map(meter, &a[0], |text| text.trim().to_owned())),
    (&[".reverse(string) string"], |meter, a| map(meter, &a[0], |text| text.chars().rev().collect())),
    (&["jsonpatch.escapeKey(string) string"], |meter, a| {
        map(meter, &a[0], |text| text.replace('~', "~0").replace('/', "~1"))
    }),
    (&["strings.quote(string) string"], |meter, a| map(meter, &a[0], quote)),
    (&[".replace(string, string, string) string", ".replace(string, string, string, int) string"], replace),
    (&[".split(string, string) list<string>", ".split(string, string, int) list<string>"], split),
    (&[".substring(string, int) string", ".substring(string, int, int) string"], substring),
    (&[".join(list<string>) string", ".join(list<string>, string) string"], join),
    (&[".format(string, list<dyn>) string"], format),
];

pub(super) fn text<'v>(value: &'v Val<'_>) -> Result<&'v str, Failure> {
    match value {
        Val::String(text) => Ok(text),
        _ => Err(Failure::overload()),
    }
}

pub(super) fn int(value: &Val<'_>) -> Result<i64, Failure> {
    match value {
        Val::Int(number) => Ok(*number),
        _ => Err(Failure::overload()),
    }
}

fn map<'a>(meter: &mut Meter<'_>, value: &Val<'a>, change: impl Fn(&str) -> String) -> Evaluated<'a> {
    meter.traverse(value.size())?;
    Ok(Val::text(change(text(value)?)))
}

/// The place of a character among the bytes.
fn byte_at(text: &str, index: i64) -> Result<usize, Failure> {
    let out = || Failure::new(format!("index out of range: {index}"));
    let index = usize::try_from(index).map_err(|_| out())?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index).ok_or_else(out)
}

fn find<'a>(meter: &mut Meter<'_>, a: &[Val<'a>], last: bool) -> Evaluated<'a> {
    let (text, part) = (text(&a[0])?, text(&a[1])?);
    meter.charge((text.len() as u64).div_ceil(10) * (part.len() as u64).div_ceil(10).max(1))?;
    let found = match (a.get(2), last) {
        (None, false) => text.find(part),
        (None, true) => text.rfind(part),
        (Some(from), false) => {
            let from = byte_at(text, int(from)?)?;
            text[from..].find(part).map(|at| at + from)
        }
        (Some(to), true) => {
            // The last place at which it may start.
            let to = byte_at(text, int(to)?)?;
            let end = text.len().min(to + part.len());
            let mut end = end;
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text[..end].rfind(part).filter(|at| *at <= to)
        }
    };
    Ok(Val::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(meter: &mut Meter<'_>, a: &[Val<'a>]) -> Evaluated<'a> {
    let (text, old, new) = (text(&a[0])?, text(&a[1])?, text(&a[2])?);
    meter.traverse(text.len())?;
    let most = a.get(3).map(int).transpose()?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let times = text.matches(old).take(most).count();
    meter.traverse(times.saturating_mul(new.len()))?;
    Ok(Val::text(text.replacen(old, new, most)))
}

fn split<'a>(meter: &mut Meter<'_>, a: &[Val<'a>]) -> Evaluated<'a> {
    let (whole, separator) = (text(&a[0])?, text(&a[1])?);
    meter.traverse(whole.len())?;
    let most = a.get(2).map(int).transpose()?.unwrap_or(-1);
    let parts: Vec<&str> = match usize::try_from(most) {
        Ok(0) => Vec::new(),
        // Characters, as Go splits by an empty separator; the last part is the rest.
        most if separator.is_empty() => {
            let most = most.unwrap_or(usize::MAX);
            let starts: Vec<usize> = whole.char_indices().map(|(at, _)| at).take(most).collect();
            let ends = starts.iter().skip(1).copied().chain([whole.len()]);
            starts.iter().zip(ends).map(|(start, end)| &whole[*start..end]).collect()
        }
        Ok(most) => whole.splitn(most, separator).collect(),
        Err(_) => whole.split(separator).collect(),
    };
    meter.charge(parts.len() as u64)?;
    Ok(Val::list(parts.into_iter().map(Val::text).collect()))
}

fn substring<'a>(meter: &mut Meter<'_>, a: &[Val<'a>]) -> Evaluated<'a> {
    let whole = text(&a[0])?;
    meter.traverse(whole.len())?;
    let (first, last) = (int(&a[1])?, a.get(2).map(int).transpose()?);
    let start = byte_at(whole, first)?;
    let end = last.map(|end| byte_at(whole, end)).transpose()?.unwrap_or(whole.len());
    if end < start {
        let end = last.unwrap_or_default();
        return Err(Failure::new(format!("invalid substring range. start: {first}, end: {end}")));
    }
    Ok(match &a[0] {
        Val::String(Text::Borrowed(text)) => Val::String(Text::Borrowed(&text[start..end])),
        _ => Val::text(&whole[start..end]),
    })
}

fn join<'a>(meter: &mut Meter<'_>, a: &[Val<'a>]) -> Evaluated<'a> {
    let Val::List(list) = &a[0] else { return Err(Failure::overload()) };
    let separator = a.get(1).map(text).transpose()?.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in list.values().enumerate() {
        let item = item?;
        let item = text(&item)?;
        meter.charge(1 + ((item.len() + separator.len()) as u64).div_ceil(10))?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    Ok(Val::text(joined))
}

/// A text in quotes, with escapes.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Digits behind the point where none are asked for.
const PRECISION: usize = 6;

fn format<'a>(meter: &mut Meter<'_>, a: &[Val<'a>]) -> Evaluated<'a> {
    let Val::List(list) = &a[1] else { return Err(Failure::overload()) };
    let template = text(&a[0])?;
    meter.traverse(template.len())?;
    let (mut out, mut rest, mut next) = (String::new(), template, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let wanted = after[..digits].parse::<usize>().ok().filter(|wanted| *wanted <= 100);
            precision = Some(wanted.ok_or_else(|| Failure::new("error while formatting: invalid precision"))?);
            rest = &after[digits..];
        }
        let verb = rest.chars().next().ok_or_else(|| Failure::new("unexpected end of string"))?;
        rest = &rest[verb.len_utf8()..];
        if next >= list.len() {
            return Err(Failure::new(format!("index {next} out of range")));
        }
        let value = list.at(next)?;
        next += 1;
        let before = out.len();
        write(meter, &mut out, verb, precision, &value)?;
        meter.traverse(out.len() - before)?;
    }
    out.push_str(rest);
    Ok(Val::text(out))
}

fn write(
    meter: &mut Meter<'_>,
    out: &mut String,
    verb: char,
    precision: Option<usize>,
    value: &Val<'_>,
) -> Result<(), Failure> {
    let wrong = || {
        let kind = value.type_name();
        Failure::new(format!("error during formatting: '%{verb}' clause does not take a value of type {}", &*kind))
    };
    let radix = |number: i128| match verb {
        'b' => format!("{:b}", number.unsigned_abs()),
        'o' => format!("{:o}", number.unsigned_abs()),
        'x' => format!("{:x}", number.unsigned_abs()),
        'X' => format!("{:X}", number.unsigned_abs()),
        _ => number.unsigned_abs().to_string(),
    };
    let hex = |bytes: &[u8]| -> String {
        let digits = bytes.iter().map(|byte| if verb == 'X' { format!("{byte:02X}") } else { format!("{byte:02x}") });
        digits.collect()
    };
    let signed = |number: i128| format!("{}{}", if number < 0 { "-" } else { "" }, radix(number));
    let done = match (verb, value) {
        ('s', value) => {
            meter.traverse(value.size())?;
            return show(meter, out, value);
        }
        ('d' | 'b' | 'o' | 'x' | 'X', Val::Int(number)) => signed((*number).into()),
        ('d' | 'b' | 'o' | 'x' | 'X', Val::Uint(number)) => signed((*number).into()),
        ('d', Val::Double(number)) if !number.is_finite() => spelled(*number).to_owned(),
        ('b', Val::Bool(flag)) => u8::from(*flag).to_string(),
        ('x' | 'X', Val::String(text)) => hex(text.as_bytes()),
        ('x' | 'X', Val::Bytes(bytes)) => hex(bytes),
        ('f' | 'e', Val::Double(_) | Val::Int(_) | Val::Uint(_)) => {
            let number = match value {
                Val::Double(number) => *number,
                Val::Int(number) => *number as f64,
                Val::Uint(number) => *number as f64,
                _ => return Err(wrong()),
            };
            let precision = precision.unwrap_or(PRECISION);
            match verb {
                _ if !number.is_finite() => spelled(number).to_owned(),
                'f' => format!("{number:.precision$}"),
                _ => {
                    let text = format!("{number:.precision$e}");
                    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                    let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
                    format!("{digits}e{sign}{exponent:0>2}")
                }
            }
        }
        ('d' | 'b' | 'o' | 'x' | 'X' | 'f' | 'e', _) => return Err(wrong()),
        _ => {
            return Err(Failure::new(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            )));
        }
    };
    out.push_str(&done);
    Ok(())
}

fn spelled(number: f64) -> &'static str {
    match number {
        n if n.is_nan() => "NaN",
        n if n > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// A value as `%s` writes it.
fn show(meter: &mut Meter<'_>, out: &mut String, value: &Val<'_>) -> Result<(), Failure> {
    meter.charge(1)?;
    match value {
        Val::List(list) => {
            out.push('[');
            items(meter, out, list)?;
            out.push(']');
        }
        Val::Map(map) => {
            out.push('{');
            for (index, key) in map.keys().iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                show(meter, out, key)?;
                out.push_str(": ");
                show(meter, out, &map.get(key).unwrap_or(Ok(Val::Null))?)?;
            }
            out.push('}');
        }
        Val::Null => out.push_str("null"),
        Val::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Val::Double(number) if !number.is_finite() => out.push_str(spelled(*number)),
        Val::Double(number) => out.push_str(&convert::float(*number)),
        Val::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Val::Timestamp(at) => out.push_str(&time::write_timestamp(*at)),
        Val::Duration(nanos) => out.push_str(&time::write_duration(*nanos)),
        other => out.push_str(&compare::show(other)),
    }
    Ok(())
}

fn items(meter: &mut Meter<'_>, out: &mut String, list: &List<'_>) -> Result<(), Failure> {
    for (index, item) in list.values().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        show(meter, out, &item?)?;
    }
    Ok(())
}
