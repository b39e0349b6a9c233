//! bbolt files, the format of etcd's backend (<https://github.com/etcd-io/bbolt>): pages that make B+ trees.
//!
//! ```text
//! page 0, 1: meta   page 2: the list of free pages, empty   then each bucket's leaves and branches, and the root bucket
//! ```
//! Here a file is written once, front to back, in pages of 4 KiB and with keys in order; only the metas, which tell where the root
//! is, are written last. [`BoltReader`] reads what bbolt itself wrote, too.

mod read;

use std::io::{self, Seek, SeekFrom, Write};

pub(super) use self::read::{BoltReader, Cursor};

const PAGE: usize = 4096;
const PAGE_HEAD: usize = 16;
/// The head of a leaf's and of a branch's element.
const ELEMENT: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// The flag of a leaf's element whose value is a bucket.
const IS_BUCKET: u32 = 1;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

/// The first page behind metas and free list.
const FIRST: u64 = 3;

/// A page's number.
type PageId = u64;

/// A file being written.
pub(super) struct Bolt<W> {
    out: W,
    next: PageId,
    /// Finished buckets with their root pages.
    buckets: Vec<(&'static [u8], PageId)>,
}

/// A bucket being written. Keys come in order.
#[derive(Default)]
pub(super) struct Bucket {
    leaf: Page,
    /// The first keys of the leaves written, and their pages.
    children: Vec<(Vec<u8>, PageId)>,
}

/// Elements that will make a page.
#[derive(Default)]
struct Page {
    elements: Vec<Element>,
    bytes: usize,
}

struct Element {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Page {
    fn push(&mut self, flags: u32, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += ELEMENT + key.len() + value.len();
        self.elements.push(Element { flags, key, value });
    }

    fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        self.elements.is_empty() || PAGE_HEAD + self.bytes + ELEMENT + key.len() + value.len() <= PAGE
    }
}

fn page_head(id: PageId, flags: u16, count: usize, overflow: u32) -> io::Result<Vec<u8>> {
    let count = u16::try_from(count).map_err(io::Error::other)?;
    let mut out = Vec::with_capacity(PAGE);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&overflow.to_le_bytes());
    Ok(out)
}

impl<W: Write + Seek> Bolt<W> {
    /// Begins a file on an empty writer.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&[0; PAGE * 2])?;
        let mut free = page_head(2, FREE_LIST, 0, 0)?;
        free.resize(PAGE, 0);
        out.write_all(&free)?;
        Ok(Self { out, next: FIRST, buckets: Vec::new() })
    }

    /// Adds a pair to a bucket.
    pub(super) fn put(&mut self, bucket: &mut Bucket, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        if !bucket.leaf.has_room(&key, &value) {
            self.write_leaf(bucket)?;
        }
        bucket.leaf.push(0, key, value);
        Ok(())
    }

    fn write_leaf(&mut self, bucket: &mut Bucket) -> io::Result<()> {
        let leaf = std::mem::take(&mut bucket.leaf);
        let page = self.write_page(LEAF, &leaf)?;
        let first = leaf.elements.into_iter().next().map(|element| element.key).unwrap_or_default();
        bucket.children.push((first, page));
        Ok(())
    }

    /// Ends a bucket.
    pub(super) fn end(&mut self, name: &'static [u8], mut bucket: Bucket) -> io::Result<()> {
        if bucket.children.is_empty() || !bucket.leaf.elements.is_empty() {
            self.write_leaf(&mut bucket)?;
        }
        let mut level = bucket.children;
        while level.len() > 1 {
            let mut above = Vec::new();
            let mut branch = Page::default();
            let mut first = Vec::new();
            for (key, page) in level {
                if !branch.has_room(&key, &[]) {
                    above.push((first, self.write_page(BRANCH, &std::mem::take(&mut branch))?));
                    first = Vec::new();
                }
                if branch.elements.is_empty() {
                    first.clone_from(&key);
                }
                branch.push(0, key, page.to_le_bytes().to_vec());
                // The child's page number is part of the element.
                branch.bytes -= size_of::<PageId>();
            }
            above.push((first, self.write_page(BRANCH, &branch)?));
            level = above;
        }
        let root = level.pop().map_or(0, |(_, page)| page);
        self.buckets.push((name, root));
        Ok(())
    }

    fn write_page(&mut self, flags: u16, page: &Page) -> io::Result<PageId> {
        let id = self.next;
        let pages = (PAGE_HEAD + page.bytes).div_ceil(PAGE);
        let mut out = page_head(id, flags, page.elements.len(), u32::try_from(pages - 1).map_err(io::Error::other)?)?;
        // Keys and values stand behind all elements; an element tells how far behind itself.
        let mut data = page.elements.len() * ELEMENT;
        for (i, element) in page.elements.iter().enumerate() {
            let number = |number: usize| u32::try_from(number).map(u32::to_le_bytes).map_err(io::Error::other);
            let at = number(data - i * ELEMENT)?;
            if flags == LEAF {
                out.extend_from_slice(&element.flags.to_le_bytes());
                out.extend_from_slice(&at);
                out.extend_from_slice(&number(element.key.len())?);
                out.extend_from_slice(&number(element.value.len())?);
            } else {
                out.extend_from_slice(&at);
                out.extend_from_slice(&number(element.key.len())?);
                // The page of a branch's child.
                out.extend_from_slice(&element.value);
            }
            data += element.key.len() + if flags == LEAF { element.value.len() } else { 0 };
        }
        for element in &page.elements {
            out.extend_from_slice(&element.key);
            if flags == LEAF {
                out.extend_from_slice(&element.value);
            }
        }
        out.resize(pages * PAGE, 0);
        self.out.write_all(&out)?;
        self.next += pages as u64;
        Ok(id)
    }

    /// Writes the root bucket and the metas; the writer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let mut root = Page::default();
        self.buckets.sort_unstable();
        for (name, page) in std::mem::take(&mut self.buckets) {
            let header = [page.to_le_bytes(), 0_u64.to_le_bytes()].concat();
            root.push(IS_BUCKET, name.to_vec(), header);
        }
        let root = self.write_page(LEAF, &root)?;
        self.out.seek(SeekFrom::Start(0))?;
        for txid in 0..2 {
            let mut meta = Vec::new();
            for number in [MAGIC, VERSION, PAGE as u32, 0] {
                meta.extend_from_slice(&number.to_le_bytes());
            }
            // The root bucket and its sequence, the free list, the end of the file, the transaction.
            for number in [root, 0, 2, self.next, txid] {
                meta.extend_from_slice(&number.to_le_bytes());
            }
            meta.extend_from_slice(&fnv1a(&meta).to_le_bytes());
            let mut page = page_head(txid, META, 0, 0)?;
            page.extend_from_slice(&meta);
            page.resize(PAGE, 0);
            self.out.write_all(&page)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The checksum of metas: 64-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
