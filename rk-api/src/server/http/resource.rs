//! Requests about resources: from method, path and query to a verb, and from its outcome to an answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, header, request::Parts};
use serde_json::Value;

use super::{
    answer::{self, Style},
    body::{self, Body},
    list::{self, Page},
    negotiate::{Shape, negotiate},
    path::ResourcePath,
    query::{Query, list_options_invalid, patch_options_invalid},
    table::Include,
    watch,
};
use crate::{
    Error, FieldSelector, ListOptions, Patch, PatchKind, Verb,
    server::{
        UserInfo,
        catalog::Served,
        flow::Cost,
        pipeline::{Call, Core},
        schema,
    },
    status,
};

/// Whether a request may last: a watch, a log that is followed, a connection.
pub(super) fn is_long_running(method: &Method, path: &ResourcePath, query: &Query) -> bool {
    verb(method, path, query) == Some("watch")
        || matches!(path.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
}

/// The verb of a request, as the authorizers know it.
pub(super) fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<&'static str> {
    let collection = path.name.is_empty();
    Some(match method.as_str() {
        "GET" | "HEAD" if path.watch || collection && query.flag("watch") => "watch",
        "GET" | "HEAD" if collection => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ => return None,
    })
}

/// What a request is expected to cost: a list, and a watch that asks for what is there, by the objects that it reads; a write by those who
/// watch them. It is apiserver's `listWorkEstimator` and `mutatingWorkEstimator`, but that a limit counts only where nothing is left out on
/// the way to it.
pub(super) fn cost(core: &Core, verb: &str, path: Option<&ResourcePath>, query: &Query) -> Cost {
    let Some(path) = path else { return Cost::default() };
    let catalog = core.catalog.load();
    let Some(served) = catalog.get(&path.group, &path.version, &path.plural) else { return Cost::default() };
    match verb {
        "list" => {}
        "watch" if query.flag("sendInitialEvents") => {}
        // A token changes nothing that is watched.
        "create" | "update" | "patch" | "delete" | "deletecollection" if path.subresource != "token" => {
            return Cost::write(served.collection.watches.interested(&path.namespace, &path.name));
        }
        _ => return Cost::default(),
    }
    let fields = query.get("fieldSelector");
    if !path.name.is_empty() || fields.split(',').any(|term| term.starts_with("metadata.name=")) {
        return Cost::default();
    }
    // A state that may be past is read from the store as a whole.
    let streamed = query.get("continue").is_empty() && query.get("resourceVersionMatch") != "Exact";
    let all = !streamed || !fields.is_empty() || !query.get("labelSelector").is_empty();
    let limit = query.get("limit").parse().ok().filter(|limit| *limit > 0 && !all);
    let size = served.collection.size();
    Cost::read(size.0.min(limit.unwrap_or(usize::MAX)), size, streamed)
}

/// Answers a request about a resource.
pub(super) async fn answer<B>(
    core: &Arc<Core>,
    user: Arc<UserInfo>,
    parts: &mut Parts,
    path: ResourcePath,
    query: &Query,
    body: B,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let verb = verb(&parts.method, &path, query).ok_or_else(status::method_not_allowed)?;
    let (namespace, name, subresource) = (&path.namespace, &path.name, &path.subresource);
    let misplaced = match verb {
        "update" | "patch" => name.is_empty(),
        "create" => !name.is_empty() && subresource.is_empty(),
        _ => false,
    };
    if misplaced {
        return Err(status::method_not_allowed().into());
    }
    // A watch of one object is a watch of the collection with a selector.
    let named_watch = verb == "watch" && !name.is_empty();
    let call = if matches!(verb, "list" | "watch" | "deletecollection") && subresource.is_empty() {
        // Selectors that can't be read are a matter of the request itself, once it is allowed.
        let labels = query.get("labelSelector").parse().unwrap_or_default();
        let fields = query.get("fieldSelector").parse().unwrap_or_default();
        core.call_selected(&user, &path.resource(), (namespace, name), verb, (&labels, &fields)).await?
    } else {
        core.call(&user, &path.resource(), (namespace.clone(), name.clone()), subresource.clone(), verb).await?
    };
    if !path.rest.is_empty() && subresource != "proxy" {
        return Err(status::no_such_path().into());
    }
    call.warn(deprecation(call.resource()).map(str::to_owned).or_else(|| call.served.deprecation.clone()));
    #[cfg(feature = "serve")]
    if super::connect::is_connection(subresource) {
        // What is rare and large is boxed, so that what is common stays small.
        let mut response = Box::pin(super::connect::answer(core, &call, parts, &path, query, body)).await?;
        answer::add_warnings(&mut response, &call.warnings.lock());
        return Ok(response);
    }
    let served = Arc::clone(&call.served);
    let shapes: &[Shape] = &[Shape::Table, Shape::Partial];
    let protobuf = schema::protobuf::has_form(&served.api_version, &served.resource().kind);
    let Some(accepted) = negotiate(&parts.headers, shapes, protobuf) else { return Err(not_acceptable()) };
    let style = Style {
        accepted,
        pretty: query.flag("pretty"),
        gzip: answer::takes_gzip(&parts.headers),
        include: Include::parse(query.get("includeObject")),
    };
    let responded = match verb {
        "watch" => {
            let mut options = query.watch()?;
            if named_watch {
                options.fields = with_name(options.fields, name);
            }
            let collection = Call { name: String::new(), ..call };
            let watched = match core.watch(&collection, options).await {
                Ok(events) => Ok(watch::answer(events, served, style, core.stopping.clone())),
                Err(error) => watch::refused(&error, accepted.format).ok_or(error),
            };
            let mut response = watched?;
            answer::add_warnings(&mut response, &collection.warnings.lock());
            return Ok(response);
        }
        "list" => {
            if !query.get("sendInitialEvents").is_empty() {
                let message = "Forbidden: sendInitialEvents is forbidden for list";
                return Err(list_options_invalid("sendInitialEvents", message));
            }
            let listed = core.listed(&call, &query.list()?).await?;
            // What a webhook converts is there before the answer begins, for that may fail.
            let alone = served.converter.is_none() || listed.clone().all(|object| served.reads_alone(&object));
            let page = if alone { Page::of(listed, &served) } else { core.read_list(&call, listed).await?.into() };
            list::answer(page, &served, style)
        }
        "get" => {
            let object = core.get(&call, query.get("resourceVersion")).await?;
            answer::object(200, &object, &served, &style)
        }
        "deletecollection" => {
            let options = query.delete(&delete_body(&body::read(body, core.limits.body).await?, &parts.headers)?)?;
            let list: ListOptions = query.list()?;
            let deleted = Box::pin(core.delete_collection(&call, &options, &list)).await?;
            list::answer(deleted.into(), &served, style)
        }
        _ => {
            let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            let content =
                parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let bytes = body::read(body, core.limits.body).await?;
            let asked = match verb {
                "delete" => Verb::Delete(query.delete(&delete_body(&bytes, &parts.headers)?)?),
                "patch" => {
                    let kind = patch_kind(content, &served)?;
                    let options = query.write("PatchOptions", agent)?;
                    Verb::Patch(patch(kind, &bytes, content, query)?, options)
                }
                _ => {
                    let options =
                        query.write(if verb == "create" { "CreateOptions" } else { "UpdateOptions" }, agent)?;
                    let object = call.decode(&bytes, content, &options.field_validation)?;
                    if verb == "create" { Verb::Create(object, options) } else { Verb::Update(object, options) }
                }
            };
            let outcome = core.answer(&call, asked).await?;
            answer::object(outcome.code, &outcome.object, &served, &style)
        }
    };
    let mut response = responded?;
    answer::add_warnings(&mut response, &call.warnings.lock());
    Ok(response)
}

pub(super) fn not_acceptable() -> Error {
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let message = format!("only the following media types are accepted: {accepted}");
    status::failure(406, "NotAcceptable", message).into()
}

/// What Kubernetes says to all who use a resource that has a successor.
fn deprecation(resource: &crate::Resource) -> Option<&'static str> {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

fn with_name(mut fields: FieldSelector, name: &str) -> FieldSelector {
    fields.terms.push(("metadata.name".to_owned(), name.to_owned(), true));
    fields
}

/// The `DeleteOptions` in a body, null if there is none.
fn delete_body(bytes: &[u8], headers: &http::HeaderMap) -> Result<Value, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let content = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let resource = crate::Resource::new("meta.k8s.io", "v1", "DeleteOptions", "", false);
    let mut value = parse(bytes, content)?;
    // Clients send it in the version of the resource's own group too.
    if let Some(fields) = value.as_object_mut() {
        match fields.get("kind").and_then(Value::as_str) {
            None | Some("" | "DeleteOptions") => {}
            Some(other) => {
                let message = format!("{other} cannot be handled as a {}", resource.kind);
                return Err(status::bad_request(message).into());
            }
        }
    }
    Ok(value)
}

/// JSON or YAML by the content type.
fn parse(bytes: &[u8], content: &str) -> Result<Value, Error> {
    if content.starts_with(schema::PROTOBUF) {
        return schema::parse_protobuf(bytes).map_err(|error| status::bad_request(error.to_string()).into());
    }
    let yaml = content.contains("yaml");
    let parsed = if yaml { schema::parse_yaml(bytes) } else { schema::parse_json(bytes) };
    Ok(parsed.map_err(|error| status::bad_request(error.to_string()))?.value)
}

/// The patch that a media type names; custom resources have no rules for strategic merges.
fn patch_kind(content: &str, served: &Served) -> Result<PatchKind, Error> {
    let kinds: &[PatchKind] = if served.custom {
        &[PatchKind::Json, PatchKind::Merge, PatchKind::Apply]
    } else {
        &[PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply]
    };
    let accepted = || kinds.iter().map(|kind| kind.content_type()).collect::<Vec<_>>();
    PatchKind::from_content_type(content)
        .filter(|kind| kinds.contains(kind))
        .ok_or_else(|| schema::unsupported_media_type(&accepted()).into())
}

fn patch(kind: PatchKind, bytes: &[u8], content: &str, query: &Query) -> Result<Patch, Error> {
    let body = parse(bytes, content)?;
    let force = query.flag("force");
    if kind != PatchKind::Apply && !query.get("force").is_empty() {
        return Err(patch_options_invalid("force", "Forbidden: may not be specified for non-apply patch"));
    }
    if kind == PatchKind::Apply && query.get("fieldManager").is_empty() {
        return Err(patch_options_invalid("fieldManager", "Required value: is required for apply patch"));
    }
    Ok(Patch { kind, body, force })
}
