//! A server, called over HTTP by somebody who may do everything.

use std::{io::Read, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use rk_api::server::{Body, Server, ServerBuilder, UserInfo};
use rk_store::MemoryStore;
use serde_json::{Value, json};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
pub const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An answer, read to its end.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {:?}", self.code, self.body))
    }

    /// The body of an answer with this code.
    pub fn is(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The body as it was before it was compressed.
    pub fn unzipped(&self) -> Vec<u8> {
        assert_eq!((self.header("content-encoding"), self.header("vary")), ("gzip", "Accept-Encoding"));
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap();
        plain
    }
}

pub struct Api(pub Server);

impl Api {
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub async fn with(parts: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self(parts(Server::builder(Arc::new(MemoryStore::new()))).build().await.unwrap())
    }

    /// An answer whose body is yet to be read.
    pub async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.0.service_as(UserInfo::loopback()).handle(request).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], &body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], &body.to_string()).await
    }

    /// Makes config maps, each with data of so many bytes.
    pub async fn config_maps(&self, count: usize, size: usize) {
        for number in 0..count {
            let metadata = json!({"name": format!("c{number:04}"), "labels": {"part": format!("{}", number % 2)}});
            let body = json!({"metadata": metadata, "data": {"filling": "x".repeat(size), "text": TEXT}});
            self.post(CONFIG_MAPS, &body).await.is(201);
        }
    }
}

/// What a careless writer of YAML or JSON gets wrong.
pub const TEXT: &str = "  two\n\n lines: - \"a\" #b\n...\n---\n\u{e9}\u{1f680}\ttab \\ end\n\n";

/// The fields of a message, all of them with a length: number and content.
pub fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        assert_eq!(tag & 7, 2, "a field with a length");
        let length = varint(&mut message) as usize;
        let (content, rest) = message.split_at(length);
        fields.push((tag >> 3, content));
        message = rest;
    }
    fields
}

/// The kind and the message in an envelope.
pub fn envelope(bytes: &[u8]) -> (String, &[u8]) {
    let parts = fields(bytes.strip_prefix(b"k8s\0").expect("the magic bytes"));
    let kind = fields(parts[0].1).into_iter().find(|(number, _)| *number == 2).unwrap().1;
    assert_eq!((parts[0].0, parts[1].0, parts.len()), (1, 2, 2));
    (String::from_utf8(kind.to_vec()).unwrap(), parts[1].1)
}
