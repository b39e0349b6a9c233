//! Query parameters as options of the verbs. Unknown parameters are ignored, as Kubernetes does.

use serde_json::Value;

use crate::{
    DeleteOptions, Error, ListOptions, Preconditions, Propagation, StatusExt, WatchOptions, WriteOptions, status,
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

    fn dry_run(&self) -> Result<bool, Error> {
        dry_run(self.0.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str()))
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
            send_initial_events: self.flag("sendInitialEvents"),
        })
    }

    /// Options of a write; the field manager falls back on the client's name.
    pub(super) fn write(&self, user_agent: &str) -> Result<WriteOptions, Error> {
        let named = self.get("fieldManager");
        if named.len() > 128 {
            return Err(options_invalid("fieldManager", "Too long: may not be more than 128 bytes"));
        }
        let agent: String = user_agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        let field_validation = self.get("fieldValidation");
        if !matches!(field_validation, "" | "Strict" | "Warn" | "Ignore") {
            return Err(options_invalid(
                "fieldValidation",
                &format!("Unsupported value: {field_validation:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""),
            ));
        }
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            field_manager: if named.is_empty() { agent } else { named.to_owned() },
            field_validation: field_validation.to_owned(),
        })
    }

    /// Options of a delete: those of the body, or of the query where there is no body.
    pub(super) fn delete(&self, body: &Value) -> Result<DeleteOptions, Error> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (grace, propagation, orphan, dry) = if body.is_null() {
            let orphan = (!self.get("orphanDependents").is_empty()).then(|| self.flag("orphanDependents"));
            (self.number("gracePeriodSeconds")?, self.get("propagationPolicy").to_owned(), orphan, self.dry_run()?)
        } else {
            let dry = body["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
            let dry = dry_run(dry.iter().filter_map(Value::as_str))?;
            let policy = body["propagationPolicy"].as_str().unwrap_or_default().to_owned();
            (body["gracePeriodSeconds"].as_i64(), policy, body["orphanDependents"].as_bool(), dry || self.dry_run()?)
        };
        let propagation = match (propagation.as_str(), orphan) {
            ("", None) => None,
            ("", Some(true)) => Some(Propagation::Orphan),
            ("", Some(false)) | ("Background", _) => Some(Propagation::Background),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("Orphan", _) => Some(Propagation::Orphan),
            (other, _) => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                );
                return Err(options_invalid("propagationPolicy", &message));
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

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Error> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            return Err(options_invalid("dryRun", &format!("Unsupported value: {value:?}: supported values: \"All\"")));
        }
        dry = true;
    }
    Ok(dry)
}

fn bad_selector(error: crate::SelectorError) -> Error {
    status::bad_request(error.to_string()).into()
}

fn options_invalid(field: &str, message: &str) -> Error {
    invalid("Options", field, message)
}

/// 422 for an option of a patch.
pub(super) fn patch_options_invalid(field: &str, message: &str) -> Error {
    invalid("PatchOptions", field, message)
}

/// 422 for an option of a list or a watch.
pub(super) fn list_options_invalid(field: &str, message: &str) -> Error {
    invalid("ListOptions", field, message)
}

fn invalid(kind: &str, field: &str, message: &str) -> Error {
    let reason = match message.split(':').next() {
        Some("Forbidden") => "FieldValueForbidden",
        Some("Required value") => "FieldValueRequired",
        Some("Unsupported value") => "FieldValueNotSupported",
        Some("Too long") => "FieldValueTooLong",
        _ => "FieldValueInvalid",
    };
    status::failure(422, "Invalid", format!("{kind}.meta.k8s.io \"\" is invalid: {field}: {message}"))
        .about("meta.k8s.io", kind, "")
        .cause(reason, field, message)
        .into()
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
        let write = query.write("kubectl/v1.32 (linux)").unwrap();
        assert!(write.dry_run && write.field_manager == "kubectl");
        for (bad, code) in [("limit=x", 400), ("labelSelector=a%20b", 400), ("fieldSelector=a", 400)] {
            assert_eq!(Query::parse(bad).list().unwrap_err().code(), code, "{bad}");
        }
        for bad in ["dryRun=Some", "fieldValidation=Perhaps"] {
            assert!(Query::parse(bad).write("").unwrap_err().is_invalid(), "{bad}");
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
