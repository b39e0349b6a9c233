//! Reading a bbolt file: the pairs of its buckets, in order.
//!
//! Nothing that a page says is believed: what it tells of must lie inside it, or inside the file; no page is part of two places;
//! and keys go up.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use bytes::Bytes;

use super::{BRANCH, ELEMENT, IS_BUCKET, LEAF, MAGIC, PAGE_HEAD, PageId, VERSION, fnv1a};
use crate::Error;

/// The bytes of a meta before its checksum, and with it.
const META_BYTES: usize = 56;
const META_SIZE: usize = META_BYTES + 8;
/// The sizes of pages that there are.
const PAGE_SIZES: [u64; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
/// The head of a bucket: its root page, 0 for one that stands behind the head, and its sequence.
const BUCKET_HEAD: usize = 16;
/// No page with what overflows of it is larger: two of the largest values that any server takes, and more.
const MAX_PAGE_BYTES: u64 = 256 << 20;
/// No tree of a file that fits a disk is deeper.
const MAX_DEPTH: usize = 32;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A file being read.
pub(crate) struct BoltReader<R> {
    file: R,
    /// How errors call it.
    name: String,
    page_size: u64,
    /// The pages that are in use, some of them free.
    pages: u64,
    /// Which pages were looked at, a bit for each.
    seen: Vec<u64>,
    /// The heads of the buckets, and what is behind them.
    buckets: BTreeMap<Bytes, Bytes>,
}

/// What a file's newest valid meta tells.
struct Meta {
    page_size: u64,
    root: PageId,
    pages: u64,
    txid: u64,
}

impl Meta {
    /// The meta in a page; `None` if there is none, or not that of a whole write.
    fn decode(page: &[u8]) -> Option<Self> {
        let meta = page.get(PAGE_HEAD..PAGE_HEAD + META_SIZE)?;
        if u32_at(meta, 0)? != MAGIC || u32_at(meta, 4)? != VERSION {
            return None;
        }
        if u64_at(meta, META_BYTES)? != fnv1a(&meta[..META_BYTES]) {
            return None;
        }
        let page_size = u64::from(u32_at(meta, 8)?);
        let (root, pages, txid) = (u64_at(meta, 16)?, u64_at(meta, 40)?, u64_at(meta, 48)?);
        PAGE_SIZES.contains(&page_size).then_some(Self { page_size, root, pages, txid })
    }
}

/// A page with what overflows of it.
struct Page {
    /// Where it is in the file.
    at: u64,
    is_leaf: bool,
    count: usize,
    /// How many pages follow that belong to it.
    overflow: u64,
    bytes: Bytes,
}

impl Page {
    /// A page from its bytes, which may end early.
    fn decode(at: u64, bytes: Bytes) -> Option<(PageId, Self)> {
        let id = u64_at(&bytes, 0)?;
        let numbers = u64_at(&bytes, 8)?.to_le_bytes();
        let [a, b, c, d, overflow @ ..] = numbers;
        let is_leaf = match u16::from_le_bytes([a, b]) {
            LEAF => true,
            BRANCH => false,
            _ => return None,
        };
        let (count, overflow) = (u16::from_le_bytes([c, d]).into(), u32::from_le_bytes(overflow).into());
        Some((id, Self { at, is_leaf, count, overflow, bytes }))
    }

    /// What begins `at` bytes behind the head of the element `i`.
    fn part(&self, i: usize, at: usize, len: usize) -> Option<Bytes> {
        let begin = (PAGE_HEAD + i * ELEMENT).checked_add(at)?;
        let end = begin.checked_add(len)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(begin..end))
    }

    /// A number of the head of the element `i`.
    fn number(&self, i: usize, at: usize) -> Option<usize> {
        usize::try_from(u32_at(&self.bytes, PAGE_HEAD + i * ELEMENT + at)?).ok()
    }

    /// A leaf's element: whether it is a bucket, its key and its value.
    fn pair(&self, i: usize) -> Option<(bool, Bytes, Bytes)> {
        let (flags, at) = (self.number(i, 0)?, self.number(i, 4)?);
        let (key, value) = (self.number(i, 8)?, self.number(i, 12)?);
        let is_bucket = flags & IS_BUCKET as usize != 0;
        Some((is_bucket, self.part(i, at, key)?, self.part(i, at.checked_add(key)?, value)?))
    }

    /// The page of a branch's element.
    fn child(&self, i: usize) -> Option<PageId> {
        u64_at(&self.bytes, PAGE_HEAD + i * ELEMENT + 8)
    }
}

/// A way through a tree, from pair to pair.
pub(crate) struct Cursor {
    /// The pages from the root down, each with its next element.
    path: Vec<(Page, usize)>,
    last: Option<Bytes>,
}

impl Cursor {
    /// Where in the file the pair is that came last.
    pub(crate) fn offset(&self) -> u64 {
        self.path.last().map_or(0, |(page, _)| page.at)
    }
}

impl<R: Read + Seek> BoltReader<R> {
    /// Reads what a file begins with, and its list of buckets. `len` bytes are its pages.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is no bbolt file, or damaged as far as is seen; [`Error::Io`].
    pub(crate) fn open(file: R, name: String, len: u64) -> Result<Self, Error> {
        let mut this = Self { file, name, page_size: 0, pages: 0, seen: Vec::new(), buckets: BTreeMap::new() };
        let meta = this.newest_meta(len)?;
        if meta.pages > len / meta.page_size {
            let all = meta.pages.saturating_mul(meta.page_size);
            return Err(this.corrupt(len, format!("it is cut: its pages take {all} bytes, and {len} are there")));
        }
        (this.page_size, this.pages) = (meta.page_size, meta.pages);
        let words = usize::try_from(meta.pages.div_ceil(64)).map_err(|_| this.corrupt(0, "it has too many pages"))?;
        this.seen = vec![0; words];
        let mut root = this.at_page(meta.root)?;
        while let Some((is_bucket, name, head)) = this.step(&mut root)? {
            if is_bucket {
                this.buckets.insert(name, head);
            }
        }
        Ok(this)
    }

    pub(crate) fn corrupt(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::Corrupt { file: self.name.clone(), offset, reason: reason.into() }
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        let done = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.read_exact(into));
        done.map_err(|error| Error::io(format!("reading {}", self.name), &error))
    }

    /// The meta of the last whole write. A write goes over the older of both.
    fn newest_meta(&mut self, len: u64) -> Result<Meta, Error> {
        let mut newest: Option<Meta> = None;
        for at in std::iter::once(0).chain(PAGE_SIZES) {
            let mut page = [0; PAGE_HEAD + META_SIZE];
            if at + page.len() as u64 > len {
                break;
            }
            self.read_at(at, &mut page)?;
            let fits = |meta: &Meta| at == 0 || at == meta.page_size;
            if let Some(meta) = Meta::decode(&page).filter(fits)
                && newest.as_ref().is_none_or(|newest| newest.txid < meta.txid)
            {
                newest = Some(meta);
            }
        }
        newest.ok_or_else(|| self.corrupt(0, "it is no snapshot of etcd: it does not begin as a bbolt file"))
    }

    /// Reads a page with what overflows of it.
    fn page(&mut self, id: PageId) -> Result<Page, Error> {
        // The metas are pages too.
        if id < 2 || id >= self.pages {
            return Err(self.corrupt(0, format!("a page {id} that it does not have")));
        }
        let (at, size) = (id * self.page_size, self.page_size as usize);
        let mut bytes = vec![0; size];
        self.read_at(at, &mut bytes)?;
        let first = Page::decode(at, bytes.into()).filter(|(own, _)| *own == id);
        let Some((_, mut page)) = first else {
            return Err(self.corrupt(at, format!("the page {id} is none of a tree")));
        };
        let all = (page.overflow + 1) * self.page_size;
        if id + page.overflow >= self.pages || all > MAX_PAGE_BYTES {
            return Err(self.corrupt(at, format!("the page {id} has {all} bytes")));
        }
        if page.overflow > 0 {
            let mut bytes = vec![0; all as usize];
            self.read_at(at, &mut bytes)?;
            page.bytes = bytes.into();
        }
        Ok(page)
    }

    /// Reads a page that nothing else has told of, as what it and those that belong to it are taken.
    fn take_page(&mut self, id: PageId) -> Result<Page, Error> {
        let page = self.page(id)?;
        for part in id..=id + page.overflow {
            // Not more than the pages, of which each has its bit.
            let (word, bit) = ((part / 64) as usize, 1 << (part % 64));
            if self.seen[word] & bit != 0 {
                return Err(self.corrupt(page.at, format!("the page {part} is part of two places")));
            }
            self.seen[word] |= bit;
        }
        Ok(page)
    }

    fn at_page(&mut self, root: PageId) -> Result<Cursor, Error> {
        Ok(Cursor { path: vec![(self.take_page(root)?, 0)], last: None })
    }

    /// A bucket that is small enough stands behind its head, as a leaf with no page of its own.
    fn inline(&self, head: &Bytes) -> Result<Page, Error> {
        let page = (head.len() > BUCKET_HEAD).then(|| Page::decode(0, head.slice(BUCKET_HEAD..))).flatten();
        let leaf = page.map(|(_, page)| page).filter(|page| page.is_leaf && page.overflow == 0);
        leaf.ok_or_else(|| self.corrupt(0, "a bucket inside a page is not whole"))
    }

    fn root(&self, bucket: &str) -> Option<(Bytes, PageId)> {
        let head = self.buckets.get(bucket.as_bytes())?;
        Some((head.clone(), u64_at(head, 0).unwrap_or(0)))
    }

    /// The begin of a bucket, `None` if the file has none of this name. Can be asked for once.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn bucket(&mut self, name: &str) -> Result<Option<Cursor>, Error> {
        match self.root(name) {
            None => Ok(None),
            Some((head, 0)) => Ok(Some(Cursor { path: vec![(self.inline(&head)?, 0)], last: None })),
            Some((_, root)) => self.at_page(root).map(Some),
        }
    }

    /// The key of a bucket's last pair, if it has any.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn last_key(&mut self, name: &str) -> Result<Option<Bytes>, Error> {
        let mut page = match self.root(name) {
            None => return Ok(None),
            Some((head, 0)) => self.inline(&head)?,
            Some((_, root)) => self.page(root)?,
        };
        for _ in 0..MAX_DEPTH {
            let Some(last) = page.count.checked_sub(1) else { return Ok(None) };
            let malformed = self.corrupt(page.at, "an element of a page lies outside of it");
            if page.is_leaf {
                return page.pair(last).map(|(_, key, _)| Some(key)).ok_or(malformed);
            }
            page = self.page(page.child(last).ok_or(malformed)?)?;
        }
        Err(self.corrupt(page.at, "a tree has no end"))
    }

    /// The next pair of a bucket, `None` at its end.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn next(&mut self, cursor: &mut Cursor) -> Result<Option<(Bytes, Bytes)>, Error> {
        match self.step(cursor)? {
            Some((true, ..)) => Err(self.corrupt(cursor.offset(), "a bucket where etcd has a pair")),
            pair => Ok(pair.map(|(_, key, value)| (key, value))),
        }
    }

    fn step(&mut self, cursor: &mut Cursor) -> Result<Option<(bool, Bytes, Bytes)>, Error> {
        loop {
            let depth = cursor.path.len();
            let Some((page, next)) = cursor.path.last_mut() else { return Ok(None) };
            let (i, at) = (*next, page.at);
            if i == page.count {
                cursor.path.pop();
                continue;
            }
            *next += 1;
            let malformed = || self.corrupt(at, "an element of a page lies outside of it");
            if page.is_leaf {
                let pair = page.pair(i).ok_or_else(malformed)?;
                if cursor.last.as_ref().is_some_and(|last| *last >= pair.1) {
                    return Err(self.corrupt(at, "keys are out of order"));
                }
                cursor.last = Some(pair.1.clone());
                return Ok(Some(pair));
            }
            let child = page.child(i).ok_or_else(malformed)?;
            if depth == MAX_DEPTH {
                return Err(self.corrupt(at, "a tree is too deep"));
            }
            let child = self.take_page(child)?;
            cursor.path.push((child, 0));
        }
    }
}
