//! Time travel: read, list and compare a store's content at any revision that is not compacted.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rk_store::Error> {
//! use futures::TryStreamExt;
//! use rk_store::{KeyRange, MemoryStore, Store, history::{self, Difference}};
//!
//! let store = MemoryStore::new();
//! store.put("/config/colour".into(), "blue".into()).await?;
//! let monday = store.put("/config/size".into(), "small".into()).await?;
//! store.put("/config/colour".into(), "green".into()).await?;
//! store.delete(KeyRange::key("/config/size")).await?;
//! let friday = store.put("/config/shape".into(), "round".into()).await?;
//!
//! // What was there then, whatever has become of it.
//! let size = history::get(&store, "/config/size", monday).await?;
//! assert_eq!(size.map(|kv| kv.value), Some("small".into()));
//! let then: Vec<_> = history::list(&store, KeyRange::prefix("/config/"), monday).try_collect().await?;
//! assert_eq!(then.len(), 2);
//!
//! // What has become of it.
//! let changes: Vec<_> = history::diff(&store, KeyRange::prefix("/config/"), monday, friday).try_collect().await?;
//! assert!(matches!(&changes[0], Difference::Changed { before, after } if before.value == "blue" && after.value == "green"));
//! assert!(matches!(&changes[1], Difference::Added(kv) if kv.key == "/config/shape"));
//! assert!(matches!(&changes[2], Difference::Removed(kv) if kv.key == "/config/size"));
//! # Ok(()) }
//! ```

use std::{cmp::Ordering, collections::VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;

use crate::{Error, KeyRange, KeyValue, RangeRequest, Revision, Store};

/// Pairs read in one go.
const PAGE: usize = 1000;

/// What became of a key between two revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is there at the second revision only.
    Added(KeyValue),
    /// It is there at both and was put in between, be it with an equal value.
    Changed {
        /// The pair at the first revision.
        before: KeyValue,
        /// The pair at the second.
        after: KeyValue,
    },
    /// It is there at the first revision only.
    Removed(KeyValue),
}

impl Difference {
    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Added(kv) | Self::Removed(kv) | Self::Changed { after: kv, .. } => &kv.key,
        }
    }
}

/// One key as it was at a revision, 0 being now.
///
/// # Errors
/// [`Error::Compacted`] and [`Error::FutureRevision`] as of any read at a revision.
pub async fn get(store: &dyn Store, key: impl Into<Bytes>, revision: Revision) -> Result<Option<KeyValue>, Error> {
    let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::key(key)) };
    Ok(store.range(request).await?.kvs.pop())
}

/// The pairs of a range as they were at a revision, 0 being now, in key order. They are read a page at a time,
/// all at the one revision; if that is compacted meanwhile, the stream ends with [`Error::Compacted`].
pub fn list(
    store: &dyn Store,
    range: KeyRange,
    revision: Revision,
) -> impl Stream<Item = Result<KeyValue, Error>> + Send {
    futures::stream::try_unfold(Pages::new(store, range, revision), |mut pages| async {
        Ok(pages.next().await?.map(|kv| (kv, pages)))
    })
}

/// What became of the keys of a range from one revision to another, 0 being now, in key order; the first may be the later
/// one. It reads both states side by side, a page at a time.
pub fn diff(
    store: &dyn Store,
    range: KeyRange,
    from: Revision,
    to: Revision,
) -> impl Stream<Item = Result<Difference, Error>> + Send {
    let pages = (Pages::new(store, range.clone(), from), Pages::new(store, range, to));
    futures::stream::try_unfold(pages, |(mut before, mut after)| async {
        Ok(difference(&mut before, &mut after).await?.map(|found| (found, (before, after))))
    })
}

async fn difference(before: &mut Pages<'_>, after: &mut Pages<'_>) -> Result<Option<Difference>, Error> {
    loop {
        let order = match (before.peek().await?, after.peek().await?) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.key.cmp(&after.key),
        };
        let before = if order.is_le() { before.next().await? } else { None };
        let after = if order.is_ge() { after.next().await? } else { None };
        match (before, after) {
            (Some(before), Some(after)) if before.mod_revision == after.mod_revision => {}
            (Some(before), Some(after)) => return Ok(Some(Difference::Changed { before, after })),
            (before, after) => return Ok(before.map(Difference::Removed).or(after.map(Difference::Added))),
        }
    }
}

/// A range at one revision, read page by page.
struct Pages<'a> {
    store: &'a dyn Store,
    /// What is left to read, `None` if nothing is.
    request: Option<RangeRequest>,
    page: VecDeque<KeyValue>,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, range: KeyRange, revision: Revision) -> Self {
        let request = RangeRequest { revision, limit: PAGE, ..RangeRequest::new(range) };
        Self { store, request: Some(request), page: VecDeque::new() }
    }

    async fn peek(&mut self) -> Result<Option<&KeyValue>, Error> {
        if self.page.is_empty()
            && let Some(mut request) = self.request.take()
        {
            let answer = self.store.range(request.clone()).await?;
            self.page = answer.kvs.into();
            if let (true, Some(last)) = (answer.more, self.page.back()) {
                request.range.start = behind(&last.key);
                // "Now" is when the first page was read.
                request.revision = if request.revision == 0 { answer.revision } else { request.revision };
                self.request = Some(request);
            }
        }
        Ok(self.page.front())
    }

    async fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        self.peek().await?;
        Ok(self.page.pop_front())
    }
}

/// The first key behind a key.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::{MemoryStore, Op, PutRequest, Txn};

    #[tokio::test]
    async fn many_pages_are_one_list_at_one_revision() {
        let store = MemoryStore::new();
        let key = |i: usize| format!("k{i:05}");
        for chunk in (0..2500).collect::<Vec<_>>().chunks(100) {
            let success = chunk.iter().map(|&i| Op::Put(PutRequest::new(key(i), "x"))).collect();
            store.txn(Txn { success, ..Txn::default() }).await.unwrap();
        }
        let then = store.status().await.unwrap().revision;
        let mut listing = std::pin::pin!(list(&store, KeyRange::all(), 0));
        let mut listed = vec![listing.try_next().await.unwrap().unwrap()];
        store.delete(KeyRange::prefix("k02")).await.unwrap();
        store.put(key(7).into(), "y".into()).await.unwrap();
        while let Some(kv) = listing.try_next().await.unwrap() {
            listed.push(kv);
        }
        assert!(
            listed.iter().map(|kv| &kv.key[..]).eq((0..2500).map(key).collect::<Vec<_>>().iter().map(|k| k.as_bytes()))
        );
        let found: Vec<_> = diff(&store, KeyRange::all(), then, 0).try_collect().await.unwrap();
        assert_eq!(found.len(), 501);
        assert!(matches!(&found[0], Difference::Changed { after, .. } if after.value == "y"));
        assert!(found[1..].iter().all(|one| matches!(one, Difference::Removed(_))));
        let back: Vec<_> = diff(&store, KeyRange::all(), 0, then).try_collect().await.unwrap();
        assert!(back[1..].iter().all(|one| matches!(one, Difference::Added(_))));
        assert!(back.iter().map(Difference::key).eq(found.iter().map(Difference::key)));
    }

    #[tokio::test]
    async fn what_is_compacted_can_not_be_compared() {
        let store = MemoryStore::new();
        for i in 0..3 {
            store.put("a".into(), format!("{i}").into()).await.unwrap();
        }
        store.compact(3).await.unwrap();
        let found: Result<Vec<_>, _> = diff(&store, KeyRange::all(), 2, 4).try_collect().await;
        assert!(matches!(found, Err(Error::Compacted { requested: 2, compacted: 3 })));
        let found: Vec<_> = diff(&store, KeyRange::all(), 3, 4).try_collect().await.unwrap();
        assert_eq!(found.len(), 1);
    }
}
