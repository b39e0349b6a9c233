//! Kubernetes' library of named formats (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#Format>).

use super::{
    super::value::{Failure, Other, Val},
    Row, strings, urls,
};
use crate::{formats, names};

/// A format: its name, and what is wrong with a text.
#[derive(Debug)]
pub(crate) struct Format {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
}

static KNOWN: [Format; 13] = [
    Format { name: "dns1123Label", check: names::dns_label },
    Format { name: "dns1123Subdomain", check: names::dns_subdomain },
    Format { name: "dns1035Label", check: names::dns1035_label },
    Format { name: "dns1123LabelPrefix", check: |text| names::dns_label(&prefix(text)) },
    Format { name: "dns1123SubdomainPrefix", check: |text| names::dns_subdomain(&prefix(text)) },
    Format { name: "dns1035LabelPrefix", check: |text| names::dns1035_label(&prefix(text)) },
    Format { name: "qualifiedName", check: names::qualified_name },
    Format { name: "labelValue", check: names::label_value },
    Format { name: "uri", check: |text| urls::parse(text).err().into_iter().collect() },
    Format { name: "uuid", check: |text| by_schema(text, "uuid", "does not match the UUID format") },
    Format { name: "byte", check: |text| by_schema(text, "byte", "invalid base64") },
    Format { name: "date", check: |text| by_schema(text, "date", "invalid date") },
    Format { name: "datetime", check: |text| by_schema(text, "date-time", "invalid datetime") },
];

/// A name that is to be completed may end in a dash.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) if !start.is_empty() => format!("{start}a"),
        _ => text.to_owned(),
    }
}

fn by_schema(text: &str, format: &str, why: &str) -> Vec<String> {
    if formats::holds(format, text) { Vec::new() } else { vec![why.to_owned()] }
}

fn named<'a>(name: &str) -> Option<Val<'a>> {
    KNOWN.iter().find(|format| format.name == name).map(|format| Val::other(Other::Format(format)))
}

pub(super) const ROWS: &[Row] = &[
    (&["format.named(string) optional<format>"], |_, a| {
        Ok(named(strings::text(&a[0])?).map_or(Val::Optional(None), Val::some))
    }),
    (&["format.dns1123Label() format"], |_, _| known(0)),
    (&["format.dns1123Subdomain() format"], |_, _| known(1)),
    (&["format.dns1035Label() format"], |_, _| known(2)),
    (&["format.dns1123LabelPrefix() format"], |_, _| known(3)),
    (&["format.dns1123SubdomainPrefix() format"], |_, _| known(4)),
    (&["format.dns1035LabelPrefix() format"], |_, _| known(5)),
    (&["format.qualifiedName() format"], |_, _| known(6)),
    (&["format.labelValue() format"], |_, _| known(7)),
    (&["format.uri() format"], |_, _| known(8)),
    (&["format.uuid() format"], |_, _| known(9)),
    (&["format.byte() format"], |_, _| known(10)),
    (&["format.date() format"], |_, _| known(11)),
    (&["format.datetime() format"], |_, _| known(12)),
    (&[".validate(format, string) optional<list<string>>"], |meter, a| {
        meter.traverse(a[1].size())?;
        let Val::Other(other) = &a[0] else { return Err(Failure::overload()) };
        let Other::Format(format) = &**other else { return Err(Failure::overload()) };
        let wrong = (format.check)(strings::text(&a[1])?);
        if wrong.is_empty() {
            return Ok(Val::Optional(None));
        }
        Ok(Val::some(Val::list(wrong.into_iter().map(Val::text).collect())))
    }),
];

fn known<'a>(number: usize) -> Result<Val<'a>, Failure> {
    Ok(Val::other(Other::Format(&KNOWN[number])))
}
