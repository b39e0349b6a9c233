//! Lists: snapshots of a collection, page by page.

use std::{hint::black_box, sync::Arc};

use base64::Engine as _;
use rk_store::{KeyRange, RangeRequest, Revision};
use serde::{Deserialize, Serialize};

use super::{Cache, Collection, collection::prefix, item::Item, key, sorted::Snapshot, store_error};
use crate::{
    Error, FieldSelector, LabelSelector, ListOptions, Object,
    server::kinds::field::{self, Errors, Path},
    status,
};

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which objects of a collection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Empty for all.
    pub(crate) namespace: String,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Selection {
    /// Whether it leaves out objects of its namespace.
    fn selects(&self) -> bool {
        !(self.labels.is_empty() && self.fields.is_empty())
    }

    /// Whether an object of the namespace matches.
    pub(super) fn matches(&self, item: &Item) -> bool {
        !self.selects() || item.matches(&self.labels, &self.fields)
    }

    /// Whether an object is in the namespace and matches.
    pub(super) fn covers(&self, item: &Item) -> bool {
        (self.namespace.is_empty() || item.object.meta().namespace == self.namespace) && self.matches(item)
    }
}

/// What a continue token says: the snapshot's revision and the last key of the page before.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: Revision,
    start: String,
}

fn encode_token(revision: Revision, start: &str) -> String {
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: start.to_owned() };
    BASE64.encode(serde_json::to_vec(&token).expect("a token encodes"))
}

fn decode_token(token: &str) -> Result<Token, Error> {
    let invalid = |why: String| Error::from(status::bad_request(format!("continue key is not valid: {why}")));
    let bytes = BASE64.decode(token.trim_end_matches('=')).map_err(|error| invalid(error.to_string()))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if token.v != "meta.k8s.io/v1" || token.start.is_empty() {
        return Err(invalid(format!("server does not recognize this encoded version {:?}", token.v)));
    }
    Ok(token)
}

fn version(text: &str) -> Result<Revision, Error> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| status::bad_request(format!("invalid resource version {text:?}")).into())
}

/// Checks `resourceVersion` and `resourceVersionMatch` as apimachinery's `ValidateListOptions` does.
fn validate(options: &ListOptions) -> Result<(), Error> {
    let path = Path::Root.child("resourceVersionMatch");
    let mut errors = Errors::default();
    match options.resource_version_match.as_str() {
        "" => {}
        wanted => {
            if options.resource_version.is_empty() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !options.continue_token.is_empty() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
            }
            match wanted {
                "Exact" if options.resource_version == "0" => {
                    errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
                }
                "Exact" | "NotOlderThan" => {}
                other => errors.not_supported(&path, other, &["Exact", "NotOlderThan", ""]),
            }
        }
    }
    if !errors.is_empty() {
        return Err(field::invalid("meta.k8s.io", "ListOptions", "", &errors.into_inner()).into());
    }
    if !options.continue_token.is_empty() && !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(status::bad_request("specifying resource version is not allowed when using continue").into());
    }
    Ok(())
}

impl Cache {
    /// A page of a collection, with Kubernetes' meaning of `resourceVersion`, its match, limit and continue
    /// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>).
    ///
    /// # Errors
    /// 400 for a bad token or version, 410 for a compacted one, 504 for one in the future.
    pub(crate) async fn list(
        &self,
        collection: &Collection,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<Listed, Error> {
        validate(options)?;
        if !options.continue_token.is_empty() {
            let token = decode_token(&options.continue_token)?;
            return self.page(collection, selection, options.limit, token.rv, Some(&token.start)).await;
        }
        let asked = version(&options.resource_version)?;
        match (options.resource_version.as_str(), options.resource_version_match.as_str()) {
            ("", _) => {
                self.sync().await?;
            }
            ("0", _) => {}
            (_, "Exact") => return self.page(collection, selection, options.limit, asked, None).await,
            _ => self.wait_for(asked).await?,
        }
        Ok(self.cached(collection, selection, options.limit, None, self.reached()))
    }

    /// A page of the current objects behind a key.
    fn cached(
        &self,
        collection: &Collection,
        selection: &Selection,
        limit: usize,
        behind: Option<&str>,
        reached: Revision,
    ) -> Listed {
        let (items, revision) = collection.snapshot(selection, behind, reached);
        Listed::of(items, selection, limit, revision)
    }

    /// A page of the objects as they were at a revision, behind a key.
    async fn page(
        &self,
        collection: &Collection,
        selection: &Selection,
        limit: usize,
        revision: Revision,
        behind: Option<&str>,
    ) -> Result<Listed, Error> {
        self.wait_for(revision).await?;
        // While nothing changed since, the cache holds just that snapshot. A compaction leaves it valid.
        if collection.last() <= revision {
            let page = self.cached(collection, selection, limit, behind, revision);
            if page.revision == revision {
                return Ok(page);
            }
        }
        let mut range = KeyRange::prefix(key::full(&collection.name, &prefix(&selection.namespace)));
        if let Some(behind) = behind {
            range.start = [&key::full(&collection.name, behind)[..], &[0]].concat().into();
        }
        let request = RangeRequest { revision, ..RangeRequest::new(range) };
        let found = match self.store.range(request).await {
            Err(rk_store::Error::Compacted { .. }) => return Err(self.inconsistent(behind).await),
            other => other.map_err(store_error)?,
        };
        let items = found.kvs.iter().map(|kv| self.item(kv)).collect::<Result<Vec<_>, _>>()?;
        Ok(Listed::of(Snapshot::of(items), selection, limit, revision))
    }

    /// 410 for a token that is too old, with one that goes on at the newest state.
    async fn inconsistent(&self, behind: Option<&str>) -> Error {
        let mut status = status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
             results. Continuing with the provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        match behind {
            Some(start) => status.metadata.continue_ = Some(encode_token(self.reached(), start)),
            None => {
                status = status::expired("The resourceVersion for the provided list is too old.");
            }
        }
        status.into()
    }
}

/// A page of a collection that is gone through as it is needed.
#[derive(Clone)]
pub(crate) struct Listed {
    /// The snapshot's version.
    pub(crate) revision: Revision,
    /// The token for the next page; empty at the end.
    pub(crate) continue_token: String,
    /// How many more there are, where that is known.
    pub(crate) remaining: Option<u64>,
    items: Snapshot,
    selection: Selection,
    /// How many of those that match are still to come.
    left: usize,
}

impl Listed {
    /// The first `limit` that match, 0 for all.
    fn of(mut items: Snapshot, selection: &Selection, limit: usize, revision: Revision) -> Self {
        let mut selection = selection.clone();
        if limit == 0 && selection.selects() {
            // Here, not where it is sent: to look for a few among many takes long, and would hold up what else is sent there.
            let mut found = Vec::new();
            while let Some(item) = items.next_ref() {
                if selection.matches(item) {
                    found.push(Arc::clone(item));
                }
            }
            (items, selection) = (Snapshot::of(found), Selection::default());
        }
        let left = if limit == 0 { usize::MAX } else { limit };
        let mut listed = Self { revision, continue_token: String::new(), remaining: None, items, selection, left };
        if limit > 0 {
            listed.look_ahead();
        }
        listed
    }

    /// Finds out whether there are more behind the page.
    fn look_ahead(&mut self) {
        let mut ahead = self.items.clone();
        let (mut taken, mut last) = (0, None);
        while let Some(item) = ahead.next_ref() {
            if !self.selection.matches(item) {
                continue;
            }
            if taken == self.left {
                self.continue_token =
                    last.map(|last: Arc<Item>| encode_token(self.revision, &last.name)).unwrap_or_default();
                // Kubernetes does not count what a selector may leave out.
                self.remaining = (!self.selection.selects()).then(|| 1 + ahead.left() as u64);
                return;
            }
            taken += 1;
            if taken == self.left {
                last = Some(Arc::clone(item));
            }
        }
    }
}

impl Listed {
    /// Reads a little of what comes soon, for who reads all of each object. They lie anywhere, and mostly in no cache: so the processor
    /// fetches several at once, where it would wait for each.
    pub(crate) fn touch_ahead(&self) {
        let coming = self.items.coming();
        if let Some(item) = coming.get(12) {
            black_box(Arc::as_ptr(&item.object));
        }
        if let Some(item) = coming.get(8) {
            black_box(item.object.json().len());
        }
        if let Some(item) = coming.get(4) {
            black_box(item.object.json().iter().step_by(256).fold(0, |all, byte| all | byte));
        }
    }

    /// The next object, without taking it out of its snapshot: to count its users would cost more than to look at it.
    pub(crate) fn next_ref(&mut self) -> Option<&Arc<Object>> {
        self.left = self.left.checked_sub(1)?;
        loop {
            match self.items.next_ref() {
                Some(item) if self.selection.matches(item) => break,
                Some(_) => {}
                None => {
                    self.left = 0;
                    return None;
                }
            }
        }
        self.items.last_ref().map(|item| &item.object)
    }
}

impl Iterator for Listed {
    type Item = Arc<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_ref().map(Arc::clone)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = self.left.min(self.items.left());
        (if self.selection.selects() { 0 } else { most }, Some(most))
    }
}
