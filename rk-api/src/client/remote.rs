//! A [`Client`] of any Kubernetes API server, over kube's client.

use std::{error::Error as Cause, io, iter::successors, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{Method, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Client, DeleteOptions, EventStream, List, ListOptions, PatchKind, Request, Verb, WatchEvent, WatchOptions,
    WriteOptions,
};
use crate::{Error, Meta, Object, Resource, Status, status};

/// Longest line of a watch: an object is at most 1.5 MiB in the store, and some more with its frame.
const LINE: usize = 16 * 1024 * 1024;

/// A [`Client`] over HTTP, so that the same program runs in a server's process or against any cluster.
#[derive(Clone)]
pub struct RemoteClient {
    client: kube::Client,
}

impl RemoteClient {
    /// Calls through this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Calls the cluster of the kubeconfig (`KUBECONFIG`, `~/.kube/config`), or the one that the program runs in.
    ///
    /// # Errors
    /// Neither is there, or it can't be used.
    pub async fn try_default() -> Result<Self, Error> {
        kube::Client::try_default().await.map(Self::new).map_err(|error| Error::Transport(error.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<http::Response<kube::client::Body>, Error> {
        let request = |body: Vec<u8>| {
            let mut head = http::Request::builder().method(&method).uri(url).header(header::ACCEPT, "application/json");
            if !body.is_empty() {
                head = head.header(header::CONTENT_TYPE, content_type);
            }
            head.body(kube::client::Body::from(body)).map_err(|error| Error::Transport(error.to_string()))
        };
        let response = match self.client.send(request(body)?).await {
            // A server closes a connection that nobody uses, and can't know that a request is on its way. One that changes nothing is
            // sent again, as Go's client does it.
            Err(error) if method == Method::GET && broke_off(&error) => self.client.send(request(Vec::new())?).await,
            sent => sent,
        };
        let response = response.map_err(|error| Error::Transport(told(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = read(response).await?;
        let failed = || status::failure(code, "", String::from_utf8_lossy(&body).trim());
        let mut failure: Status = serde_json::from_slice(&body).unwrap_or_else(|_| failed());
        if failure.code.is_none() {
            failure.code = Some(code.into());
        }
        Err(failure.into())
    }

    async fn object(&self, method: Method, url: &str, kind: &str, body: Vec<u8>) -> Result<Bytes, Error> {
        read(self.send(method, url, kind, body).await?).await
    }
}

async fn read(response: http::Response<kube::client::Body>) -> Result<Bytes, Error> {
    let body = response.into_body().collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| Error::Transport(told(&error)))
}

/// An error and what it comes from.
fn causes<'a>(error: &'a (dyn Cause + 'static)) -> impl Iterator<Item = &'a (dyn Cause + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Whether a connection ended before it brought an answer. One that could not be made, or was too slow, is another matter.
fn broke_off(error: &kube::Error) -> bool {
    let is_slow = |cause: &(dyn Cause + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    causes(error).any(|cause| cause.is::<hyper::Error>()) && !causes(error).any(is_slow)
}

/// An error with its causes, as far as it does not tell of them itself.
fn told(error: &(dyn Cause + 'static)) -> String {
    causes(error)
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

/// A URL of a path and those parameters that are not empty.
fn url(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(_, value)| !value.is_empty()));
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn write_url(path: &str, options: &WriteOptions, force: bool) -> String {
    let parameters = [
        ("dryRun", if options.dry_run { "All" } else { "" }),
        ("fieldManager", &options.field_manager),
        ("fieldValidation", &options.field_validation),
        ("force", if force { "true" } else { "" }),
    ];
    url(path, &parameters)
}

fn delete_body(options: &DeleteOptions) -> Vec<u8> {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = propagation.as_str().into();
    }
    if let Some(uid) = &options.preconditions.uid {
        body["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(version) = &options.preconditions.resource_version {
        body["preconditions"]["resourceVersion"] = version.as_str().into();
    }
    body.to_string().into_bytes()
}

fn list_url(resource: &Resource, namespace: &str, options: &ListOptions) -> String {
    let limit = if options.limit == 0 { String::new() } else { options.limit.to_string() };
    let parameters = [
        ("labelSelector", options.labels.to_string()),
        ("fieldSelector", options.fields.to_string()),
        ("limit", limit),
        ("continue", options.continue_token.clone()),
        ("resourceVersion", options.resource_version.clone()),
        ("resourceVersionMatch", options.resource_version_match.clone()),
    ];
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    url(&resource.path(namespace, "", ""), &parameters)
}

fn watch_url(resource: &Resource, namespace: &str, options: &WatchOptions) -> String {
    let timeout = if options.timeout_seconds == 0 { String::new() } else { options.timeout_seconds.to_string() };
    let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
    let parameters = [
        ("watch", "true".to_owned()),
        ("labelSelector", options.labels.to_string()),
        ("fieldSelector", options.fields.to_string()),
        ("resourceVersion", options.resource_version.clone()),
        ("allowWatchBookmarks", flag(options.bookmarks)),
        ("timeoutSeconds", timeout),
        ("sendInitialEvents", options.send_initial_events.map(|wanted| wanted.to_string()).unwrap_or_default()),
        ("resourceVersionMatch", if options.send_initial_events.is_some() { "NotOlderThan" } else { "" }.to_owned()),
    ];
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    url(&resource.path(namespace, "", ""), &parameters)
}

/// An object of a list or an event, which may lack its `apiVersion` and `kind`.
fn complete(json: &RawValue, resource: &Resource) -> Result<Arc<Object>, Error> {
    let object = Object::from_json(Bytes::copy_from_slice(json.get().as_bytes()))?;
    if !object.kind().is_empty() && !object.api_version().is_empty() {
        return Ok(Arc::new(object));
    }
    let mut value = object.value()?;
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.as_ref().into();
    Ok(Arc::new(Object::from_value(&value)?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
    remaining_item_count: Option<u64>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Marked {
    metadata: Meta,
}

fn event(line: &[u8], resource: &Resource) -> Result<WatchEvent, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::decode("watch event", error);
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(|error| wrong(&error))?;
    match frame.kind {
        "ADDED" => complete(frame.object, resource).map(WatchEvent::Added),
        "MODIFIED" => complete(frame.object, resource).map(WatchEvent::Modified),
        "DELETED" => complete(frame.object, resource).map(WatchEvent::Deleted),
        "BOOKMARK" => {
            let marked: Marked = serde_json::from_str(frame.object.get()).map_err(|error| wrong(&error))?;
            let initial_end = marked.metadata.annotations.contains_key("k8s.io/initial-events-end");
            Ok(WatchEvent::Bookmark { resource_version: marked.metadata.resource_version, initial_end })
        }
        "ERROR" => {
            let failure: Status = serde_json::from_str(frame.object.get()).map_err(|error| wrong(&error))?;
            Err(failure.into())
        }
        other => Err(wrong(&format!("unknown type {other:?}"))),
    }
}

/// The lines of a watch that are still to come.
struct Lines {
    body: kube::client::Body,
    buffer: BytesMut,
    resource: Resource,
    ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        let mut searched = 0;
        while !self.ended {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(searched + at + 1);
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let event = event(&line, &self.resource);
                self.ended = event.is_err();
                return Some(event);
            }
            searched = self.buffer.len();
            if searched > LINE {
                self.ended = true;
                return Some(Err(Error::decode("watch event", &"it is too long")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(Error::Transport(told(&error))));
                }
                None => self.ended = true,
            }
        }
        None
    }
}

#[async_trait]
impl Client for RemoteClient {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let Request { resource, namespace, name, subresource, verb } = request;
        let json = "application/json";
        let path = resource.path(&namespace, &name, &subresource);
        let body = match verb {
            Verb::Get => self.object(Method::GET, &path, json, Vec::new()).await?,
            Verb::Create(body, options) => {
                // An object is posted to its collection, whatever its name.
                let path = if subresource.is_empty() { resource.path(&namespace, "", "") } else { path };
                let body = filled(body, &resource, &subresource);
                self.object(Method::POST, &write_url(&path, &options, false), json, body).await?
            }
            Verb::Update(body, options) => {
                let body = filled(body, &resource, &subresource);
                self.object(Method::PUT, &write_url(&path, &options, false), json, body).await?
            }
            Verb::Patch(patch, options) => {
                let force = patch.force && patch.kind == PatchKind::Apply;
                let body = patch.body.to_string().into_bytes();
                let url = write_url(&path, &options, force);
                self.object(Method::PATCH, &url, patch.kind.content_type(), body).await?
            }
            Verb::Delete(options) => self.object(Method::DELETE, &path, json, delete_body(&options)).await?,
        };
        Ok(Arc::new(Object::from_json(body)?))
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        let url = list_url(resource, namespace, &options);
        let body = self.object(Method::GET, &url, "application/json", Vec::new()).await?;
        let page: Page<'_> = serde_json::from_slice(&body).map_err(|error| Error::decode("list", &error))?;
        let items = page.items.unwrap_or_default();
        let items = items.into_iter().map(|item| complete(item, resource)).collect::<Result<_, _>>()?;
        let PageMeta { resource_version, continue_token, remaining_item_count: remaining } = page.metadata;
        Ok(List { items, resource_version, continue_token, remaining })
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        let url = watch_url(resource, namespace, &options);
        let response = self.send(Method::GET, &url, "", Vec::new()).await?;
        let lines =
            Lines { body: response.into_body(), buffer: BytesMut::new(), resource: resource.clone(), ended: false };
        let events = stream::unfold(lines, |mut lines| async move {
            let event = lines.next().await?;
            Some((event, lines))
        });
        Ok(events.boxed())
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        let url = list_url(resource, namespace, &list);
        self.object(Method::DELETE, &url, "application/json", delete_body(&delete)).await.map(|_| ())
    }
}

/// A body with the kind of its resource, where it has none; bodies of subresources say their own.
fn filled(mut body: Value, resource: &Resource, subresource: &str) -> Vec<u8> {
    if matches!(subresource, "" | "status")
        && let Value::Object(fields) = &mut body
    {
        fields.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        fields.entry("kind").or_insert_with(|| resource.kind.as_ref().into());
    }
    body.to_string().into_bytes()
}
