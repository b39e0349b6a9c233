//! Logs of and streams into a pod's containers, by its node's kubelet.

use std::sync::Arc;

use http::{Method, Response, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;

use super::{
    super::{
        answer,
        body::{self, Body},
        query::Query,
    },
    forward::forward,
    kubelet,
};
use crate::{
    Error,
    server::pipeline::{Call, Core},
    status,
};

/// Longest text of a refusal by a kubelet that is read.
const REFUSAL: usize = 64 * 1024;

fn names(pod: &Value, field: &str) -> Vec<String> {
    let list = pod["spec"][field].as_array().into_iter().flatten();
    list.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
}

/// The container that is meant.
///
/// # Errors
/// 400 if there is none of that name, or several and none is named.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, Error> {
    let (own, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    let bad = |message: String| Err(status::bad_request(message).into());
    if !asked.is_empty() {
        let known = own.iter().chain(&init).chain(&ephemeral).any(|container| container == asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            bad(format!("container {asked} is not valid for pod {name}"))
        };
    }
    match own.as_slice() {
        [only] => Ok(only.clone()),
        [] => bad(format!("a container name must be specified for pod {name}")),
        several => {
            let list = |names: &[String]| format!("[{}]", names.join(" "));
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: {}", list(several));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: {}", list(&init)));
            }
            if !ephemeral.is_empty() {
                message.push_str(&format!(" or one of the ephemeral containers: {}", list(&ephemeral)));
            }
            bad(message)
        }
    }
}

/// The pod of a call.
fn pod_of(call: &Call) -> Result<Value, Error> {
    let found = call.served.collection.get(&call.item()).ok_or_else(|| call.not_found())?;
    found.object.value()
}

fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

fn no_host(call: &Call) -> Error {
    status::bad_request(format!("pod {} does not have a host assigned", call.name)).into()
}

/// Query parameters of a log that the kubelet has too; the numbers among them may not be below this.
const LOG_OPTIONS: [(&str, Option<i64>); 8] = [
    ("follow", None),
    ("previous", None),
    ("timestamps", None),
    ("sinceTime", None),
    ("stream", None),
    ("sinceSeconds", Some(1)),
    ("tailLines", Some(0)),
    ("limitBytes", Some(1)),
];

/// Answers `log`.
pub(super) async fn log(core: &Arc<Core>, call: &Call, query: &Query) -> Result<Response<Body>, Error> {
    let pod = pod_of(call)?;
    let options = log_options(call, query)?;
    let container = container(&pod, &call.name, query.get("container"))?;
    let Some(node) = node_of(&pod) else {
        // A pod that is nowhere has written nothing.
        return Ok(answer::respond(200, "text/plain", body::empty()));
    };
    let uri = format!("/containerLogs/{}/{}/{container}?{options}", call.namespace, call.name);
    let (stream, address) = kubelet::connect(core, node).await?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let response = forward(stream, &address.authority(), &uri, &mut parts, body::empty()).await?;
    let response = refused(response, call).await?;
    Ok(answer::respond(200, "text/plain", response.into_body()))
}

/// The query of the kubelet's log.
///
/// # Errors
/// 400, 422: an option is wrong.
fn log_options(call: &Call, query: &Query) -> Result<String, Error> {
    let mut options = form_urlencoded::Serializer::new(String::new());
    for (name, least) in LOG_OPTIONS {
        let value = query.get(name);
        if value.is_empty() {
            continue;
        }
        if let Some(least) = least {
            let number: i64 = value.parse().map_err(|_| {
                status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax: parameter {name:?}"))
            })?;
            if number < least {
                let message = format!("Invalid value: {number}: must be greater than or equal to {least}");
                let error = crate::server::FieldError { reason: "FieldValueInvalid", field: name.to_owned(), message };
                let resource = crate::Resource::new("", "v1", "PodLogOptions", "", true);
                return Err(crate::server::pipeline::invalid(&resource, &call.name, vec![error]));
            }
        }
        options.append_pair(name, value);
    }
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        let message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned();
        let error =
            crate::server::FieldError { reason: "FieldValueForbidden", field: "sinceSeconds".to_owned(), message };
        let resource = crate::Resource::new("", "v1", "PodLogOptions", "", true);
        return Err(crate::server::pipeline::invalid(&resource, &call.name, vec![error]));
    }
    Ok(options.finish())
}

/// Answers `exec`, `attach` and `portforward`.
pub(super) async fn stream(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    query: &Query,
    body: Body,
) -> Result<Response<Body>, Error> {
    let pod = pod_of(call)?;
    let uri = stream_target(call, &pod, query)?;
    let node = node_of(&pod).ok_or_else(|| no_host(call))?;
    let (connection, address) = kubelet::connect(core, node).await?;
    // The kubelet takes SPDY by POST; a WebSocket is opened by GET.
    if parts.method != Method::GET {
        parts.method = Method::POST;
    }
    let response = forward(connection, &address.authority(), &uri, parts, body).await?;
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        Ok(response)
    } else {
        refused(response, call).await
    }
}

/// The kubelet's path and query of a stream.
///
/// # Errors
/// 400: no such container, or nothing to run.
fn stream_target(call: &Call, pod: &Value, query: &Query) -> Result<String, Error> {
    let mut options = form_urlencoded::Serializer::new(String::new());
    let target = if call.subresource == "portforward" {
        for port in query.all("ports") {
            options.append_pair("port", port);
        }
        format!("/portForward/{}/{}", call.namespace, call.name)
    } else {
        for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if query.flag(ours) {
                options.append_pair(theirs, "1");
            }
        }
        for word in query.all("command") {
            options.append_pair("command", word);
        }
        if call.subresource == "exec" && query.get("command").is_empty() {
            return Err(status::bad_request("you must specify at least one command for the container").into());
        }
        let container = container(pod, &call.name, query.get("container"))?;
        format!("/{}/{}/{}/{container}", call.subresource, call.namespace, call.name)
    };
    Ok(format!("{target}?{}", options.finish()))
}

/// A refusal by the kubelet as a `Status`; other answers as they are.
async fn refused(response: Response<Body>, call: &Call) -> Result<Response<Body>, Error> {
    let code = response.status().as_u16();
    if code < 400 {
        return Ok(response);
    }
    let limited = http_body_util::Limited::new(response.into_body(), REFUSAL);
    let text = limited.collect().await.map(|text| text.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match code {
        400 => status::bad_request(text),
        404 => {
            let mut status = status::not_found(call.resource(), &call.name);
            status.message = Some(text);
            status
        }
        401 | 403 => status::internal(format!("the kubelet refuses the API server: {text}")),
        _ => status::internal(text),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_are_found_or_asked_for() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "p", "i").unwrap(), "i");
        let message = |asked| container(&pod, "p", asked).unwrap_err().to_string();
        assert!(message("x").contains("container x is not valid for pod p"));
        let wanted =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert!(message("").contains(wanted));
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "p", "").unwrap(), "a");
    }
}
