//! Pages of a collection, whose objects are encoded as they are sent: no more of an answer is there than is under way. Protobuf says
//! first how long all is, so there an object is encoded before, once for all lists and watches while its form is kept.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::Response;
use serde_json::{Value, json};

use super::{
    answer::{self, JSON, Style, YAML, no_yaml, protobuf_form},
    body::{Body, Gather},
    negotiate::{Format, Shape},
    table::{self, META},
};
use crate::{
    Error, List, Object,
    server::{
        catalog::Served,
        schema::{
            PROTOBUF,
            protobuf::{self, Encoded},
        },
        storage::{For, Listed},
    },
    status,
};

/// Objects, one after the other.
enum Objects {
    /// As they are stored, which the row converts as they are taken.
    Stored(Listed, Arc<Served>),
    /// In the version that is asked for.
    Read(std::vec::IntoIter<Arc<Object>>),
}

impl Objects {
    /// Does something with the next one in the version that is asked for.
    fn next<T>(&mut self, with: impl FnOnce(&Object) -> Result<T, Error>) -> Option<Result<T, Error>> {
        Some(match self {
            Self::Stored(listed, served) => {
                listed.touch_ahead();
                match listed.next_ref()? {
                    object if served.reads_as_stored(object) => with(object),
                    object => served.read_alone(object).and_then(|object| with(&object)),
                }
            }
            Self::Read(objects) => with(&*objects.next()?),
        })
    }
}

/// A page of a collection whose objects are taken as they are sent.
pub(super) struct Page {
    metadata: Value,
    items: Objects,
}

impl Page {
    fn new(version: &str, continue_token: &str, remaining: Option<u64>, items: Objects) -> Self {
        let mut metadata = json!({"resourceVersion": version});
        if !continue_token.is_empty() {
            metadata["continue"] = continue_token.into();
        }
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        Self { metadata, items }
    }

    /// Stored objects, which `served` converts as they are taken.
    pub(super) fn of(listed: Listed, served: &Arc<Served>) -> Self {
        let (version, token, served) = (listed.revision.to_string(), listed.continue_token.clone(), Arc::clone(served));
        let remaining = listed.remaining;
        Self::new(&version, &token, remaining, Objects::Stored(listed, served))
    }
}

impl From<List> for Page {
    fn from(list: List) -> Self {
        let items = Objects::Read(list.items.into_iter());
        Self::new(&list.resource_version, &list.continue_token, list.remaining, items)
    }
}

/// The answer to a list.
///
/// # Errors
/// An object can't be read before the answer begins; later the answer breaks off.
pub(super) fn answer(page: Page, served: &Arc<Served>, style: Style) -> Result<Response<Body>, Error> {
    let Page { metadata, mut items } = page;
    let resource = served.resource();
    let shape = style.accepted.shape;
    let (api_version, kind) = match shape {
        Shape::Partial => (META.to_owned(), "PartialObjectMetadataList".to_owned()),
        _ => (resource.api_version(), format!("{}List", resource.kind)),
    };
    if style.accepted.format == Format::Protobuf && shape != Shape::Table {
        let forms = std::iter::from_fn(|| items.next(|object| protobuf_form(object, served, shape, For::Reader)));
        let forms = forms.collect::<Result<Vec<_>, Error>>()?;
        let lengths = forms.iter().map(|form| form.message().len());
        let head = protobuf::list_head(&api_version, &kind, &metadata, lengths)
            .ok_or_else(|| status::internal(format!("{kind} has no protobuf form")))?;
        return answer::pieces(PROTOBUF, Messages { head: Some(head), forms: forms.into_iter() }, &style);
    }
    let head = match shape {
        Shape::Table => table::head(served, metadata, true),
        _ => json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}),
    };
    let syntax = match style.accepted.format {
        Format::Yaml => Syntax::Yaml,
        _ if style.pretty => Syntax::Pretty,
        _ => Syntax::Json,
    };
    let content_type = if syntax == Syntax::Yaml { YAML } else { JSON };
    let (served, include) = (Arc::clone(served), style.include);
    let write = move |object: &Object, into: &mut BytesMut| match shape {
        Shape::Table => syntax.element(&table::row(&served, object, include)?, into),
        Shape::Partial => syntax.element(&table::partial(object)?, into),
        _ if syntax == Syntax::Json => {
            into.extend_from_slice(object.json());
            Ok(())
        }
        _ => syntax.element(&object.value()?, into),
    };
    let head = syntax.head(&head, if shape == Shape::Table { "rows" } else { "items" })?;
    let elements = Elements { syntax, head: Some(head), items, write, any: false };
    answer::pieces(content_type, elements, &style)
}

/// A list in protobuf.
struct Messages {
    head: Option<Vec<u8>>,
    forms: std::vec::IntoIter<Arc<Encoded>>,
}

impl Gather for Messages {
    fn gather(&mut self, into: &mut BytesMut) -> Result<bool, Error> {
        if let Some(head) = self.head.take() {
            into.extend_from_slice(&head);
        }
        if let Some(form) = self.forms.next() {
            protobuf::put_item(form.message(), into);
        }
        Ok(!self.forms.as_slice().is_empty())
    }
}

/// A list in a form of text, element by element.
struct Elements<F> {
    syntax: Syntax,
    head: Option<Vec<u8>>,
    items: Objects,
    write: F,
    /// Whether an element is written.
    any: bool,
}

impl<F> Gather for Elements<F>
where
    F: FnMut(&Object, &mut BytesMut) -> Result<(), Error> + Send + 'static,
{
    fn gather(&mut self, into: &mut BytesMut) -> Result<bool, Error> {
        if let Some(head) = self.head.take() {
            into.extend_from_slice(&head);
        }
        let before = self.syntax.before(self.any);
        let written = self.items.next(|object| {
            into.extend_from_slice(before);
            (self.write)(object, into)
        });
        self.any |= written.is_some();
        if written.is_none() {
            into.extend_from_slice(self.syntax.end(self.any));
        }
        written.map_or(Ok(false), |written| written.map(|()| true))
    }
}

/// How a list is written around its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Json,
    /// JSON with a line for each value, two spaces deeper for each level.
    Pretty,
    Yaml,
}

impl Syntax {
    /// What comes before the elements: the other fields, and the name of the one with the elements.
    fn head(self, fields: &Value, elements: &str) -> Result<Vec<u8>, Error> {
        let encoded = |error| status::internal(format!("can't write JSON: {error}"));
        let mut text = match self {
            Self::Json => serde_json::to_string(fields).map_err(encoded)?,
            Self::Pretty => serde_json::to_string_pretty(fields).map_err(encoded)?,
            Self::Yaml => serde_saphyr::to_string(fields).map_err(no_yaml)?,
        };
        // The object goes on: its last brace comes later.
        match self {
            Self::Json => {
                text.pop();
                text.push_str(&format!(",\"{elements}\":["));
            }
            Self::Pretty => {
                text.truncate(text.len() - "\n}".len());
                text.push_str(&format!(",\n  \"{elements}\": ["));
            }
            Self::Yaml => text.push_str(&format!("{elements}:")),
        }
        Ok(text.into())
    }

    /// What comes before an element; `more` if it is not the first.
    fn before(self, more: bool) -> &'static [u8] {
        match (self, more) {
            (Self::Json, false) => b"",
            (Self::Json, true) => b",",
            (Self::Pretty, false) => b"\n    ",
            (Self::Pretty, true) => b",\n    ",
            (Self::Yaml, false) => b"\n- ",
            (Self::Yaml, true) => b"- ",
        }
    }

    fn element(self, value: &Value, into: &mut BytesMut) -> Result<(), Error> {
        let encoded = |error| Error::from(status::internal(format!("can't write JSON: {error}")));
        match self {
            Self::Json => serde_json::to_writer(into.writer(), value).map_err(encoded),
            // Lines begin deeper than they would alone. In JSON no string has lines, and in YAML those of a string are as deep as they
            // begin.
            Self::Pretty => {
                let text = serde_json::to_string_pretty(value).map_err(encoded)?;
                into.extend_from_slice(text.replace('\n', "\n    ").as_bytes());
                Ok(())
            }
            Self::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(no_yaml)?;
                // Lines that end a text that ends in several are part of it.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                into.extend_from_slice(text.replace('\n', "\n  ").as_bytes());
                into.put_u8(b'\n');
                Ok(())
            }
        }
    }

    /// What comes behind the elements, if there are any.
    fn end(self, any: bool) -> &'static [u8] {
        match (self, any) {
            (Self::Json, _) => b"]}",
            (Self::Pretty, false) => b"]\n}",
            (Self::Pretty, true) => b"\n  ]\n}",
            (Self::Yaml, false) => b" []\n",
            (Self::Yaml, true) => b"",
        }
    }
}
