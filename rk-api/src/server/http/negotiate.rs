//! Which form of an answer the client wants.

use http::{HeaderMap, header};

use crate::server::schema::PROTOBUF;

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

/// The shape of an answer (`as=` in the media type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The objects themselves.
    Object,
    /// `meta.k8s.io` Table: what kubectl prints.
    Table,
    /// Metadata only.
    Partial,
    /// `apidiscovery.k8s.io` v2.
    Discovery,
}

/// What the client takes, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) format: Format,
    pub(super) shape: Shape,
}

impl Accepted {
    pub(super) const JSON: Self = Self { format: Format::Json, shape: Shape::Object };
}

/// The first of the accepted media types that this server speaks, `None` (406) if it speaks none. `shapes` are those
/// that the path has besides the objects themselves; `protobuf` whether those have a protobuf form.
pub(super) fn negotiate(headers: &HeaderMap, shapes: &[Shape], protobuf: bool) -> Option<Accepted> {
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Some(Accepted::JSON);
    }
    let mut clauses: Vec<(i32, Accepted)> = Vec::new();
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            PROTOBUF => Format::Protobuf,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let get = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let shape = match (get("as"), get("g"), get("v")) {
            (None, ..) => Shape::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Shape::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                Shape::Partial
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Shape::Discovery,
            _ => continue,
        };
        let spoken = shape == Shape::Object || shapes.contains(&shape);
        let formed = match (format, shape) {
            (Format::Protobuf, Shape::Object) => protobuf,
            (Format::Protobuf, shape) => shape == Shape::Partial,
            _ => true,
        };
        if !spoken || !formed {
            continue;
        }
        let quality = get("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        if quality > 0.0 {
            clauses.push(((quality * -1000.0) as i32, Accepted { format, shape }));
        }
    }
    clauses.sort_by_key(|(quality, _)| *quality);
    clauses.first().map(|(_, accepted)| *accepted)
}

/// The format of a `Status`, which has every form.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let shapes = [Shape::Table, Shape::Partial, Shape::Discovery];
    negotiate(headers, &shapes, true).map_or(Format::Json, |accepted| accepted.format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_spoken_wins() {
        let tables = [Shape::Table, Shape::Partial];
        for (accept, wanted) in [
            ("", Some(Accepted::JSON)),
            ("*/*", Some(Accepted::JSON)),
            ("application/vnd.kubernetes.protobuf, application/json", Some(Accepted::JSON)),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            ("application/yaml", Some(Accepted { format: Format::Yaml, shape: Shape::Object })),
            ("application/json;q=0.5, application/yaml", Some(Accepted { format: Format::Yaml, shape: Shape::Object })),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Accepted { format: Format::Json, shape: Shape::Table }),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some(Accepted::JSON),
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(negotiate(&headers, &tables, false), wanted, "{accept}");
        }
    }

    #[test]
    fn protobuf_where_there_is_a_form() {
        let mut headers = HeaderMap::new();
        let accept = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/vnd.kubernetes.protobuf,application/json";
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let format = |protobuf| negotiate(&headers, &[Shape::Table], protobuf).unwrap();
        assert_eq!(format(true), Accepted { format: Format::Protobuf, shape: Shape::Object });
        assert_eq!(format(false), Accepted::JSON);
        let accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let partial = negotiate(&headers, &[Shape::Partial], false);
        assert_eq!(partial, Some(Accepted { format: Format::Protobuf, shape: Shape::Partial }));
    }
}
