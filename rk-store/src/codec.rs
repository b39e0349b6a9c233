//! The byte layout shared by commands, records and snapshots: little-endian integers and length-prefixed strings of bytes.

use bytes::{Buf, BufMut, Bytes};

/// Bytes that do not hold what they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed data: {0}")]
pub struct DecodeError(pub &'static str);

/// Appends bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // No request is near 4 GiB: `MAX_REQUEST_BYTES` bounds them.
    out.put_u32_le(u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB"));
    out.put_slice(bytes);
}

/// Takes fields off the front of a buffer; byte strings share its memory.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    fn need(&self, len: usize) -> Result<(), DecodeError> {
        if self.rest.len() < len { Err(DecodeError("it ends too early")) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_i64_le())
    }

    /// A count of things that take at least one byte each, so that a wrong count can't ask for memory without bound.
    pub(crate) fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        self.need(count)?;
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    #[cfg(feature = "log")]
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), DecodeError> {
        self.need(len)?;
        self.rest.advance(len);
        Ok(())
    }

    #[cfg(feature = "log")]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError("bytes are left behind its end")) }
    }
}
