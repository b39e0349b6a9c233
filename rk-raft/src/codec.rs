//! The byte layout of what members tell each other and keep: big-endian integers and strings of bytes behind their length.

use bytes::{Buf, BufMut, Bytes};

/// Appends bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB"));
    out.put_slice(bytes);
}

/// Takes bytes off the front, sharing their memory; `None` if they are not there.
pub(crate) fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let len = from.try_get_u32().ok()? as usize;
    (len <= from.len()).then(|| from.split_to(len))
}

/// Takes a string off the front.
pub(crate) fn take_string(from: &mut Bytes) -> Option<String> {
    String::from_utf8(take_bytes(from)?.to_vec()).ok()
}

/// Appends strings behind their count.
pub(crate) fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    out.put_u32(u32::try_from(strings.len()).expect("there are fewer than 2^32 strings"));
    for string in strings {
        put_bytes(out, string.as_bytes());
    }
}

/// Takes strings off the front.
pub(crate) fn take_strings(from: &mut Bytes) -> Option<Vec<String>> {
    // The first one that is missing ends it, so a wrong count asks for no memory.
    (0..from.try_get_u32().ok()?).map(|_| take_string(from)).collect()
}
