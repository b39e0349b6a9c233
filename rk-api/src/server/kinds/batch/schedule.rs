//! The syntax of a CronJob's schedule: five fields, or a name such as `@daily`, as robfig/cron reads it.

/// What is wrong with a schedule; `None` if nothing.
pub fn error(schedule: &str) -> Option<String> {
    let text = schedule.trim();
    if text.is_empty() {
        return Some("empty spec string".to_owned());
    }
    if let Some(name) = text.strip_prefix('@') {
        return named(name, text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(&FIELDS).find_map(|(text, field)| field.error(text))
}

fn named(name: &str, text: &str) -> Option<String> {
    if let Some(every) = name.strip_prefix("every ") {
        return (!is_duration(every))
            .then(|| format!("failed to parse duration {text}: time: invalid duration \"{every}\""));
    }
    let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
    (!known.contains(&name)).then(|| format!("unrecognized descriptor: {text}"))
}

/// A duration of Go: numbers with units, such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let known = ["ns", "us", "µs", "ms", "s", "m", "h"].contains(&&rest[digits..unit]);
        if rest[..digits].parse::<f64>().is_err() || !known {
            return false;
        }
        rest = &rest[unit..];
    }
    !text.is_empty()
}

struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: MONTHS },
    Field { min: 0, max: 6, names: DAYS },
];

impl Field {
    fn error(&self, text: &str) -> Option<String> {
        text.split(',').find_map(|part| self.part(part).err())
    }

    fn part(&self, part: &str) -> Result<(), String> {
        let mut halves = part.split('/');
        let (range, step) = (halves.next().unwrap_or_default(), halves.next());
        if halves.next().is_some() {
            return Err(format!("too many slashes: {part}"));
        }
        let mut ends = range.split('-');
        let (low, high) = (ends.next().unwrap_or_default(), ends.next());
        if ends.next().is_some() {
            return Err(format!("too many hyphens: {part}"));
        }
        let (low, high) = if matches!(low, "*" | "?") {
            (self.min, self.max)
        } else {
            let low = self.number(low)?;
            let high = match high {
                Some(high) => self.number(high)?,
                None if step.is_some() => self.max,
                None => low,
            };
            (low, high)
        };
        if let Some(step) = step {
            let step: u32 = step.parse().map_err(|_| format!("failed to parse int from {step}"))?;
            if step == 0 {
                return Err(format!("step of range should be a positive number: {part}"));
            }
        }
        if low < self.min {
            return Err(format!("beginning of range ({low}) below minimum ({}): {part}", self.min));
        }
        if high > self.max {
            return Err(format!("end of range ({high}) above maximum ({}): {part}", self.max));
        }
        if low > high {
            return Err(format!("beginning of range ({low}) beyond end of range ({high}): {part}"));
        }
        Ok(())
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if let Some(i) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(u32::try_from(i).unwrap_or(0) + self.min);
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_checked() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@daily", "@every 1h30m", "0 22 * * 1-5", "5/15 * ? * 0"]
        {
            assert_eq!(error(good), None, "{good}");
        }
        for (bad, words) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4"),
            ("60 * * * *", "above maximum (59)"),
            ("* * 0 * *", "below minimum (1)"),
            ("5-2 * * * *", "beyond end of range"),
            ("*/0 * * * *", "positive number"),
            ("a * * * *", "failed to parse int from a"),
            ("@never", "unrecognized descriptor"),
            ("@every x", "failed to parse duration"),
            ("1/2/3 * * * *", "too many slashes"),
        ] {
            let error = error(bad).unwrap();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
