//! What goes into a log at once, and its bytes.
//!
//! ```text
//! item = 0 | index u64 | length u32 | crc u32 | bytes     an entry, in place of those from its index on
//!      | 1 | length u32 | bytes                           the state
//!      | 2 | next u64                                     a cut: the entries from `next` on are gone
//!      | 3 | next u64                                     a new beginning: all entries are gone, the next one is `next`
//! ```

use bytes::{BufMut, Bytes};

use crate::codec::{DecodeError, Reader, put_bytes};

const ENTRY: u8 = 0;
const STATE: u8 = 1;
const CUT: u8 = 2;
const RESET: u8 = 3;
/// Bytes of an entry before its own.
const ENTRY_HEAD: usize = 17;

/// Changes that a log takes in order, all or none.
///
/// ```
/// let mut batch = rk_store::log::LogBatch::default();
/// batch.entry(1, |out| out.extend_from_slice(b"first"));
/// batch.entry(2, |out| out.extend_from_slice(b"second"));
/// // Whoever has another second entry writes it in place of this one.
/// batch.entry(2, |out| out.extend_from_slice(b"other"));
/// batch.state(b"term 7, vote 2");
/// ```
#[derive(Debug, Clone, Default)]
pub struct LogBatch {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

impl LogBatch {
    /// A batch with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), items: Vec::new() }
    }

    /// Adds an entry, whose bytes `fill` appends to what it is given. Entries that have this index or a later one are gone. The
    /// index is at most that behind the last entry.
    pub fn entry(&mut self, index: u64, fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.put_u8(ENTRY);
        self.bytes.put_u64_le(index);
        self.bytes.put_u64_le(0);
        let at = self.bytes.len();
        fill(&mut self.bytes);
        let len = u32::try_from(self.bytes.len() - at).expect("an entry is shorter than 4 GiB");
        let crc = crc32c::crc32c(&self.bytes[at..]);
        self.bytes[at - 8..at - 4].copy_from_slice(&len.to_le_bytes());
        self.bytes[at - 4..at].copy_from_slice(&crc.to_le_bytes());
        self.items.push(Item::Entry { index, at: u32::try_from(at).expect("a batch is shorter than 4 GiB"), len, crc });
    }

    /// Sets the state: bytes that a log keeps beside its entries, a vote say.
    pub fn state(&mut self, state: &[u8]) {
        self.bytes.put_u8(STATE);
        put_bytes(&mut self.bytes, state);
        self.items.push(Item::State(Bytes::copy_from_slice(state)));
    }

    /// Removes the entries from `next` on. `next` is at most the index behind the last entry.
    pub fn cut(&mut self, next: u64) {
        self.bytes.put_u8(CUT);
        self.bytes.put_u64_le(next);
        self.items.push(Item::Cut(next));
    }

    /// Removes all entries; the next one has the index `next`.
    pub fn reset(&mut self, next: u64) {
        self.bytes.put_u8(RESET);
        self.bytes.put_u64_le(next);
        self.items.push(Item::Reset(next));
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// About the bytes that it adds to a log.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// An entry's index, where its bytes begin in the payload, and how many they are.
    Entry {
        index: u64,
        at: u32,
        len: u32,
        crc: u32,
    },
    State(Bytes),
    Cut(u64),
    Reset(u64),
}

/// The changes in a frame's payload.
pub(crate) fn items(payload: &Bytes) -> Result<Vec<Item>, DecodeError> {
    let mut reader = Reader::new(payload.clone());
    let mut items = Vec::new();
    while !reader.is_empty() {
        let begin = payload.len() - reader.len();
        items.push(match reader.u8()? {
            ENTRY => {
                let (index, len, crc) = (reader.u64()?, reader.u32()?, reader.u32()?);
                reader.skip(len as usize)?;
                let at = u32::try_from(begin + ENTRY_HEAD).map_err(|_| DecodeError("a frame is too long"))?;
                Item::Entry { index, at, len, crc }
            }
            STATE => Item::State(reader.bytes()?),
            CUT => Item::Cut(reader.u64()?),
            RESET => Item::Reset(reader.u64()?),
            _ => return Err(DecodeError("an unknown item in the log")),
        });
    }
    Ok(items)
}
