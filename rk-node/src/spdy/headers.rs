//! Header blocks: names and values, compressed with zlib and a fixed dictionary over the whole connection.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::SpdyError;

/// Words of the dictionary that stand with their length before them.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of the dictionary, plain.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Largest header block taken, unpacked.
const MAX_BLOCK: usize = 64 << 10;

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

/// Names in lower case, and values.
pub(super) type Headers = BTreeMap<String, String>;

/// Reads the header blocks of one connection.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn unpack(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let malformed = |what: &str| SpdyError::Protocol(format!("header block: {what}"));
        let (mut out, mut rest) = (Vec::with_capacity(1024), block);
        while !rest.is_empty() {
            if out.len() == out.capacity() {
                out.reserve(1024);
            }
            let (read, wrote) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|e| malformed(&e.to_string()))?;
                }
                Err(error) => return Err(malformed(&error.to_string())),
                Ok(_) if self.0.total_in() == read && self.0.total_out() == wrote && out.len() < out.capacity() => {
                    return Err(malformed("it does not end"));
                }
                Ok(_) => {}
            }
            rest = &rest[(self.0.total_in() - read) as usize..];
            if out.len() > MAX_BLOCK {
                return Err(malformed("it is too long"));
            }
        }
        self.drain(&mut out)?;
        parse(&out).ok_or_else(|| malformed("a length points behind its end"))
    }

    /// What zlib still holds when all input is in.
    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), SpdyError> {
        while out.len() == out.capacity() {
            out.reserve(1024);
            let before = out.len();
            let result = self.0.decompress_vec(&[], out, FlushDecompress::Sync);
            if out.len() == before {
                break;
            }
            result.map_err(|e| SpdyError::Protocol(format!("header block: {e}")))?;
            if out.len() > MAX_BLOCK {
                return Err(SpdyError::Protocol("header block: it is too long".to_owned()));
            }
        }
        Ok(())
    }
}

fn parse(mut bytes: &[u8]) -> Option<Headers> {
    let mut headers = Headers::new();
    for _ in 0..number(&mut bytes)? {
        let name = text(&mut bytes)?;
        headers.insert(name.to_ascii_lowercase(), text(&mut bytes)?);
    }
    Some(headers)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*head))
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = number(bytes)? as usize;
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(head).into_owned())
}

/// Writes the header blocks of one connection.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).expect("a fresh stream takes a dictionary");
        Self(zlib)
    }

    pub(super) fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(part.len() as u32).to_be_bytes());
            plain.extend_from_slice(part.as_bytes());
        }
        // Room for the worst case, so that one flush is all.
        let mut out = Vec::with_capacity(plain.len() + 128);
        self.0.compress_vec(&plain, &mut out, FlushCompress::Sync).expect("compressing into enough room works");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let dictionary = dictionary();
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &dictionary {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        // The checksum that stands in the first header block of every SPDY/3 connection.
        assert_eq!((dictionary.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_come_back_over_a_connection() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for i in 0..50 {
            let long = "x".repeat(i * 100);
            let headers = Headers::from([("port".to_owned(), i.to_string()), ("streamtype".to_owned(), long)]);
            assert_eq!(unpacker.unpack(&packer.pack(&headers)).unwrap(), headers);
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Unpacker::new().unpack(&[1, 2, 3, 4]).is_err());
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']).is_none());
        let bomb = Headers::from([("a".to_owned(), "x".repeat(MAX_BLOCK * 2))]);
        let mut packer = Packer(Compress::new(Compression::fast(), true));
        packer.0.set_dictionary(&dictionary()).unwrap();
        assert!(Unpacker::new().unpack(&packer.pack(&bomb)).is_err());
    }
}
