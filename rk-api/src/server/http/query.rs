//! Query parameters as options of the verbs. Unknown parameters are ignored, as Kubernetes does.

use serde_json::Value;

use crate::{
    DeleteOptions, Error, ListOptions, Preconditions, Propagation, WatchOptions, WriteOptions,
    server::{FieldError, kinds::field},
    status,
};

/// The parameters of a URL.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; empty if it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    #[cfg(feature = "serve")]
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there and true as Go's `strconv.ParseBool` (and a bare `?watch`) has it.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key == name && !matches!(value.as_str(), "0" | "f" | "F" | "false" | "FALSE" | "False"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax: parameter {name:?}"))
                    .into()
            }),
        }
    }

    fn dry_run(&self, kind: &str) -> Result<bool, Error> {
        let values = self.0.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        dry_run(kind, &values.collect::<Vec<_>>())
    }

    pub(super) fn list(&self) -> Result<ListOptions, Error> {
        let limit: i64 = self.number("limit")?.unwrap_or(0);
        Ok(ListOptions {
            labels: self.get("labelSelector").parse().map_err(bad_selector)?,
            fields: self.get("fieldSelector").parse().map_err(bad_selector)?,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: self.get("continue").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            resource_version_match: self.get("resourceVersionMatch").to_owned(),
        })
    }

    pub(super) fn watch(&self) -> Result<WatchOptions, Error> {
        let list = self.list()?;
        let initial = self.get("sendInitialEvents");
        if !initial.is_empty() && list.resource_version_match != "NotOlderThan" {
            return Err(list_options_invalid(
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if initial.is_empty() && !list.resource_version_match.is_empty() {
            return Err(list_options_invalid(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        Ok(WatchOptions {
            labels: list.labels,
            fields: list.fields,
            resource_version: list.resource_version,
            bookmarks: self.flag("allowWatchBookmarks"),
            timeout_seconds: self.number("timeoutSeconds")?.unwrap_or(0),
            send_initial_events: (!initial.is_empty()).then(|| self.flag("sendInitialEvents")),
        })
    }

    /// Options of a write, of the kind `CreateOptions`, `UpdateOptions` or `PatchOptions`; the field manager falls back
    /// on the client's name.
    pub(super) fn write(&self, kind: &str, user_agent: &str) -> Result<WriteOptions, Error> {
        let named = self.get("fieldManager");
        if named.len() > 128 {
            return Err(invalid(kind, "fieldManager", "Too long: may not be more than 128 bytes"));
        }
        let agent: String = user_agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        let field_validation = self.get("fieldValidation");
        if !matches!(field_validation, "" | "Strict" | "Warn" | "Ignore") {
            let supported = r#""", "Ignore", "Strict", "Warn""#;
            let message = format!("Unsupported value: {field_validation:?}: supported values: {supported}");
            return Err(invalid(kind, "fieldValidation", &message));
        }
        Ok(WriteOptions {
            dry_run: self.dry_run(kind)?,
            field_manager: if named.is_empty() { agent } else { named.to_owned() },
            field_validation: field_validation.to_owned(),
        })
    }

    /// Options of a delete: those of the body, or of the query where there is no body.
    pub(super) fn delete(&self, body: &Value) -> Result<DeleteOptions, Error> {
        let kind = "DeleteOptions";
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (grace, propagation, orphan, dry) = if body.is_null() {
            let orphan = (!self.get("orphanDependents").is_empty()).then(|| self.flag("orphanDependents"));
            (self.number("gracePeriodSeconds")?, self.get("propagationPolicy").to_owned(), orphan, self.dry_run(kind)?)
        } else {
            let dry = body["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
            let dry = dry_run(kind, &dry.iter().filter_map(Value::as_str).collect::<Vec<_>>())?;
            let policy = body["propagationPolicy"].as_str().unwrap_or_default().to_owned();
            (
                body["gracePeriodSeconds"].as_i64(),
                policy,
                body["orphanDependents"].as_bool(),
                dry || self.dry_run(kind)?,
            )
        };
        let propagation = match (propagation.as_str(), orphan) {
            ("", None) => None,
            (policy, Some(_)) if !policy.is_empty() => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                return Err(invalid(kind, "propagationPolicy", &format!("Invalid value: {policy:?}: {why}")));
            }
            ("", Some(true)) => Some(Propagation::Orphan),
            ("", Some(false)) | ("Background", None) => Some(Propagation::Background),
            ("Foreground", None) => Some(Propagation::Foreground),
            ("Orphan", None) => Some(Propagation::Orphan),
            (other, _) => {
                let supported = r#""Foreground", "Background", "Orphan", "nil""#;
                let message = format!("Unsupported value: {other:?}: supported values: {supported}");
                return Err(invalid(kind, "propagationPolicy", &message));
            }
        };
        let preconditions = &body["preconditions"];
        Ok(DeleteOptions {
            dry_run: dry,
            grace_period_seconds: grace,
            propagation,
            preconditions: Preconditions {
                uid: text(&preconditions["uid"]),
                resource_version: text(&preconditions["resourceVersion"]),
            },
        })
    }
}

fn dry_run(kind: &str, values: &[&str]) -> Result<bool, Error> {
    if values.iter().any(|value| *value != "All") {
        let shown = Value::from(values);
        return Err(invalid(kind, "dryRun", &format!("Unsupported value: {shown}: supported values: \"All\"")));
    }
    Ok(!values.is_empty())
}

fn bad_selector(error: crate::SelectorError) -> Error {
    status::bad_request(error.to_string()).into()
}

/// 422 for an option of a patch.
pub(super) fn patch_options_invalid(field: &str, message: &str) -> Error {
    invalid("PatchOptions", field, message)
}

/// 422 for an option of a list or a watch.
pub(super) fn list_options_invalid(field: &str, message: &str) -> Error {
    invalid("ListOptions", field, message)
}

fn invalid(kind: &str, name: &str, message: &str) -> Error {
    let reason = match message.split(':').next() {
        Some("Forbidden") => "FieldValueForbidden",
        Some("Required value") => "FieldValueRequired",
        Some("Unsupported value") => "FieldValueNotSupported",
        Some("Too long") => "FieldValueTooLong",
        _ => "FieldValueInvalid",
    };
    let error = FieldError { reason, field: name.to_owned(), message: message.to_owned() };
    field::invalid("meta.k8s.io", kind, "", &vec![error]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_are_read_and_checked() {
        let query = Query::parse("limit=5&labelSelector=a%3Db&watch&dryRun=All&x=y");
        assert_eq!(query.list().unwrap().limit, 5);
        assert!(query.flag("watch") && !query.flag("follow"));
        let write = query.write("CreateOptions", "kubectl/v1.32 (linux)").unwrap();
        assert!(write.dry_run && write.field_manager == "kubectl");
        for (bad, code) in [("limit=x", 400), ("labelSelector=a%20b", 400), ("fieldSelector=a", 400)] {
            assert_eq!(Query::parse(bad).list().unwrap_err().code(), code, "{bad}");
        }
        for bad in ["dryRun=Some", "fieldValidation=Perhaps"] {
            assert!(Query::parse(bad).write("CreateOptions", "").unwrap_err().is_invalid(), "{bad}");
        }
        assert!(Query::parse("resourceVersionMatch=NotOlderThan&resourceVersion=1").watch().unwrap_err().is_invalid());
    }

    #[test]
    fn deletes_take_the_body_or_the_query() {
        let body = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}});
        let options = Query::parse("").delete(&body).unwrap();
        assert_eq!((options.grace_period_seconds, options.propagation), (Some(0), Some(Propagation::Orphan)));
        assert_eq!(options.preconditions.uid.as_deref(), Some("u"));
        let options = Query::parse("gracePeriodSeconds=7&orphanDependents=false").delete(&Value::Null).unwrap();
        assert_eq!((options.grace_period_seconds, options.propagation), (Some(7), Some(Propagation::Background)));
        assert!(Query::parse("propagationPolicy=Else").delete(&Value::Null).unwrap_err().is_invalid());
    }
}
