//! ConfigMaps of 1 KiB, made without an encoder.

use crate::http2::{Method, Request};

/// Bytes of an object as it is sent.
const SIZE: usize = 1024;

/// Where ConfigMaps of a namespace are.
pub(super) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// The name of an object by its number.
pub(super) fn name(number: u64) -> String {
    format!("load-{number:09}")
}

/// The body of an object; `change` tells its versions apart.
fn body(number: u64, change: u64) -> Vec<u8> {
    let mut body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{}","labels":{{"app":"load"}}}},"data":{{"change":"{change}","filling":""#,
        name(number)
    )
    .into_bytes();
    body.resize(SIZE - 3, b'x');
    body.extend_from_slice(b"\"}}");
    body
}

pub(super) fn create(namespace: &str, number: u64) -> Request {
    Request { method: Method::Post, path: collection(namespace), body: body(number, 0) }
}

pub(super) fn one(namespace: &str, number: u64, method: Method, change: u64) -> Request {
    let body = match method {
        Method::Put => body(number, change),
        Method::Patch => format!(r#"{{"data":{{"change":"{change}"}}}}"#).into_bytes(),
        _ => Vec::new(),
    };
    Request { method, path: format!("{}/{}", collection(namespace), name(number)), body }
}

/// Numbers that look random, for which object is next.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// One below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_body_is_an_object_of_1_kib() {
        let body = super::body(7, 3);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body.len(), value["metadata"]["name"].as_str()), (1024, Some("load-000000007")));
    }
}
