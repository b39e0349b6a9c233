//! Changes messages of protocol buffers field by field, so that what is changed can still be decoded.

use crate::mutate::{ODD, Random, mutate};

#[derive(Clone)]
enum Value {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    /// Bytes that can be read as fields.
    Message(Vec<Field>),
}

#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

/// Messages within each other that are looked at.
const DEPTH: usize = 8;

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn parse(mut from: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !from.is_empty() {
        let key = take_varint(&mut from)?;
        let len = match key & 7 {
            0 => {
                fields.push(Field { number: key >> 3, value: Value::Number(take_varint(&mut from)?) });
                continue;
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut from)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, rest) = from.split_at_checked(len)?;
        from = rest;
        let value = match parse(bytes, depth + 1) {
            _ if key & 7 != 2 => Value::Fixed(bytes.to_vec()),
            Some(inner) if depth < DEPTH && !inner.is_empty() => Value::Message(inner),
            _ => Value::Bytes(bytes.to_vec()),
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, value } in fields {
        let key = |kind| number << 3 | kind;
        match value {
            Value::Number(value) => {
                put_varint(&mut out, key(0));
                put_varint(&mut out, *value);
            }
            Value::Fixed(bytes) => {
                put_varint(&mut out, key(if bytes.len() == 8 { 1 } else { 5 }));
                out.extend(bytes);
            }
            Value::Bytes(bytes) => put_bytes(&mut out, key(2), bytes),
            Value::Message(inner) => put_bytes(&mut out, key(2), &encode(inner)),
        }
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, key: u64, bytes: &[u8]) {
    put_varint(out, key);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Changes some fields of a message; now and then, bytes wherever they are.
pub fn mutate_message(bytes: &mut Vec<u8>, random: &mut Random) {
    match parse(bytes, 0) {
        Some(mut fields) if random.below(8) > 0 => {
            for _ in 0..1 + random.below(4) {
                change(&mut fields, random);
            }
            *bytes = encode(&fields);
        }
        _ => mutate(bytes, 0, random),
    }
}

fn near(number: u64, random: &mut Random) -> u64 {
    match random.below(4) {
        0 => ODD[random.below(ODD.len())],
        1 => random.next(),
        2 => number.wrapping_sub(random.below(5) as u64),
        _ => number.wrapping_add(random.below(5) as u64),
    }
}

fn change(fields: &mut Vec<Field>, random: &mut Random) {
    let at = random.below(fields.len());
    match (random.below(16), fields.get(at)) {
        (0, _) | (_, None) => {
            let value = match random.below(3) {
                0 => Value::Bytes((0..random.below(20)).map(|_| random.next() as u8).collect()),
                _ => Value::Number(near(0, random)),
            };
            fields.insert(at.min(fields.len()), Field { number: 1 + random.below(15) as u64, value });
        }
        (1, _) => drop(fields.remove(at)),
        (2, Some(field)) => {
            let (field, copies) = (field.clone(), [1, 1, 2, 200][random.below(4)]);
            let to = random.below(fields.len());
            fields.splice(to..to, std::iter::repeat_n(field, copies));
        }
        (3, _) => fields[at].number = 1 + random.below(15) as u64,
        (4, _) => {
            // In itself, and sometimes deeper than anyone should follow.
            let number = fields[at].number;
            for _ in 0..[1, 2, 3, 150][random.below(4)] {
                let inner = std::mem::take(fields);
                fields.push(Field { number, value: Value::Message(inner) });
            }
        }
        _ => match &mut fields[at].value {
            Value::Number(number) => *number = near(*number, random),
            Value::Fixed(bytes) => {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            Value::Bytes(bytes) => mutate(bytes, 0, random),
            Value::Message(inner) => change(inner, random),
        },
    }
}
