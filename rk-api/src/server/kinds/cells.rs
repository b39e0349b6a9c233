//! What table cells share: the columns every kind has, ages, and the joining of names.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::value::Peek;
use crate::server::Column;

/// A column shown always.
pub const fn column(name: &'static str, kind: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind, priority: 0, description: "", cell }
}

/// A column of `-o wide`.
pub const fn wide(name: &'static str, kind: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind, priority: 1, description: "", cell }
}

/// `Name`.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may \
                  allow a client to request the generation of an appropriate name automatically.",
    cell: |object| object.text("metadata.name").into(),
};

/// `Age`, as a duration.
pub const AGE: Column = Column {
    name: "Age",
    kind: "string",
    priority: 0,
    description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
    cell: |object| age(object.text("metadata.creationTimestamp")).into(),
};

/// `Created At`, as a time.
pub const CREATED_AT: Column = Column {
    name: "Created At",
    kind: "date",
    priority: 0,
    description: AGE.description,
    cell: |object| object.at("metadata.creationTimestamp").clone(),
};

/// The text, or `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// How long ago an RFC 3339 time was: `5m3s`; `<unknown>` if there is none.
pub fn age(since: &str) -> String {
    match since.parse::<Timestamp>() {
        Ok(since) => duration(crate::now().as_second() - since.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Apimachinery's human duration: two units near a unit's start, one further on (`5m3s`, `27m`, `3h5m`, `2d4h`, `400d`, `3y`).
pub fn duration(seconds: i64) -> String {
    // Clocks of two machines may be a little apart.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |whole: i64, unit: char, rest: i64, small: char| {
        let mut text = format!("{whole}{unit}");
        if rest != 0 {
            let _ = write!(text, "{rest}{small}");
        }
        text
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two(days, 'd', hours % 24, 'h')
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        two(years, 'y', days % 365, 'd')
    } else {
        format!("{years}y")
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(map: &Value) -> Value {
    let pairs: Vec<_> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or_none(&pairs.join(","))
}

/// A label selector as kubectl writes it, `<none>` if it selects everything.
pub fn selector(spec: &Value) -> Value {
    let text = super::selector::parse(spec).map(|selector| selector.to_string());
    match text {
        Ok(text) => or_none(&text),
        Err(_) => "<error>".into(),
    }
}

/// The names of the containers of a pod's spec.
pub fn container_names(pod_spec: &Value) -> Value {
    joined(pod_spec, "name")
}

/// The images of the containers of a pod's spec.
pub fn container_images(pod_spec: &Value) -> Value {
    joined(pod_spec, "image")
}

fn joined(pod_spec: &Value, field: &str) -> Value {
    let values: Vec<_> = pod_spec.list("containers").iter().map(|container| container.text(field)).collect();
    values.join(",").into()
}

/// The number at a path, 0 if there is none.
pub fn number(object: &Value, path: &str) -> i64 {
    object.int(path).unwrap_or(0)
}

/// The first condition of this type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.list("status.conditions").iter().find(|condition| condition.text("type") == kind)
}

/// `name` and `age` around the columns of a kind.
pub fn between(columns: impl IntoIterator<Item = Column>, last: impl IntoIterator<Item = Column>) -> Vec<Column> {
    std::iter::once(NAME).chain(columns).chain([AGE]).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_apimachinerys() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (1620, "27m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (52 * 3600, "2d4h"),
            (8 * 86_400, "8d"),
            (400 * 86_400, "400d"),
            (730 * 86_400, "2y"),
            (800 * 86_400, "2y70d"),
            (9 * 365 * 86_400, "9y"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
