//! Durations as Kubernetes' configuration files have them: Go's, such as `15s` or `1h30m`.

use jiff::{
    SignedDuration,
    fmt::friendly::{Designator, Spacing, SpanPrinter},
};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// What a text says, `None` if it is no duration.
fn parse(text: &str) -> Option<SignedDuration> {
    if matches!(text, "0" | "+0" | "-0") {
        return Some(SignedDuration::ZERO);
    }
    // Of the forms that jiff knows, Go has the one without spaces, with the shortest names of units.
    let units =
        text.split(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-')).filter(|unit| !unit.is_empty());
    let known = |unit: &str| matches!(unit, "ns" | "us" | "µs" | "ms" | "s" | "m" | "h");
    if text.ends_with(|c: char| c.is_ascii_digit()) || !units.into_iter().all(known) {
        return None;
    }
    text.parse().ok()
}

/// A duration as Go reads it.
pub(super) fn text(duration: &SignedDuration) -> String {
    SpanPrinter::new().spacing(Spacing::None).designator(Designator::Compact).duration_to_string(duration)
}

pub(super) fn serialize<S: Serializer>(duration: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("time: invalid duration {text:?}")))
}

/// For durations that may be absent.
pub(super) mod option {
    use super::{Deserializer, Serializer, SignedDuration};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<SignedDuration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SignedDuration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let seconds = |text| parse(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("15s"), Some(15.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("-2s"), Some(-2.0));
        assert_eq!(seconds("0"), Some(0.0));
        for written in ["15s", "1h30m", "250ms", "0s"] {
            assert_eq!(parse(written).map(|duration| text(&duration)), Some(written.to_owned()));
        }
        for wrong in ["", "15", "s", "15 s", "15 seconds", "15sec", "PT15S", "1d", "1x", "--1s"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
