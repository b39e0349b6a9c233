//! Makes damaged bytes from whole ones, and mends checksums, so that what lies behind them is reached too.

/// Numbers from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Numbers at which decoders go wrong.
pub const ODD: [u64; 9] = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Changes some bytes from `from` on, and sometimes the length.
pub fn mutate(bytes: &mut Vec<u8>, from: usize, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let len = bytes.len().saturating_sub(from);
        if len == 0 {
            bytes.extend((0..random.below(40)).map(|_| random.next() as u8));
            continue;
        }
        let at = from + random.below(len);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 | 3 => {
                let odd = ODD[random.below(ODD.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&odd[..width]);
            }
            4 => bytes.truncate(at),
            5 => {
                // A stretch twice.
                let end = at + random.below((bytes.len() - at).min(64)) + 1;
                let stretch = bytes[at..end.min(bytes.len())].to_vec();
                let to = from + random.below(len);
                bytes.splice(to..to, stretch);
            }
            6 => {
                let end = (at + random.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let new: Vec<_> = (0..random.below(16)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, new);
            }
        }
    }
}

const FILE_HEAD: usize = 24;
const FRAME_HEAD: usize = 12;

/// The frames of a framed file, as ranges of their payloads.
fn payloads(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut at) = (Vec::new(), FILE_HEAD);
    while let Some(head) = bytes.get(at..at + FRAME_HEAD).filter(|head| head.starts_with(b"rkfr")) {
        let len = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let payload = at + FRAME_HEAD..at + FRAME_HEAD + len;
        if payload.end > bytes.len() {
            break;
        }
        at = payload.end;
        found.push(payload);
    }
    found
}

/// Changes the payload of one frame of a framed file, with length and checksum as they must be.
pub fn mutate_payload(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = payloads(bytes);
    if found.is_empty() {
        return mutate(bytes, 0, random);
    }
    let payload = found[random.below(found.len())].clone();
    let mut changed = bytes[payload.clone()].to_vec();
    mutate(&mut changed, 0, random);
    let mut salted = bytes[16..20].to_vec();
    salted.extend((changed.len() as u32).to_le_bytes());
    salted.extend(&changed);
    let begin = payload.start - FRAME_HEAD;
    bytes[begin + 4..begin + 8].copy_from_slice(&(changed.len() as u32).to_le_bytes());
    bytes[begin + 8..begin + 12].copy_from_slice(&crc32c::crc32c(&salted).to_le_bytes());
    bytes.splice(payload, changed);
}

/// Changes the payload of one frame of a snapshot stream, with lengths and checksums as they must be.
pub fn mutate_snapshot(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut frames = Vec::new();
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let Some(payload) = bytes.get(at + 8..at + 8 + len) else { break };
        frames.push(payload.to_vec());
        at += 8 + len;
    }
    let changed = random.below(frames.len());
    let Some(frame) = frames.get_mut(changed) else { return };
    mutate(frame, 0, random);
    let whole = frames.iter().take(frames.len() - 1).fold(0, |crc, frame| crc32c::crc32c_append(crc, frame));
    if let Some(sum) = frames.last_mut().and_then(|last| last.last_chunk_mut::<4>()) {
        *sum = whole.to_le_bytes();
    }
    bytes.truncate(8);
    for frame in frames {
        bytes.extend((frame.len() as u32).to_le_bytes());
        bytes.extend(crc32c::crc32c(&frame).to_le_bytes());
        bytes.extend(frame);
    }
}
