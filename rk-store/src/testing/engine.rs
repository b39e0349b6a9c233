//! The checks of an [`Engine`].

use bytes::Bytes;

use crate::{Batch, Engine, EngineError, Write};

fn put(key: &'static str, value: &'static str) -> Write {
    Write::Put(key.into(), value.into())
}

fn keys(engine: &dyn Engine, start: &str, end: Option<&str>, limit: usize) -> Result<Vec<Bytes>, EngineError> {
    let mut keys = Vec::new();
    engine.scan(start.as_bytes(), end.map(str::as_bytes), &mut |key, _| {
        keys.push(key.clone());
        keys.len() < limit
    })?;
    Ok(keys)
}

/// Runs every check on a new, empty engine.
pub fn conformance(engine: &dyn Engine) -> Result<(), EngineError> {
    assert_eq!(keys(engine, "", None, usize::MAX)?, [] as [Bytes; 0], "it begins empty");
    engine.apply(Batch { writes: vec![put("b", "1"), put("a", "1"), put("c", ""), put("bb", "1")] })?;
    assert_eq!(engine.get(b"a")?, Some("1".into()));
    assert_eq!(engine.get(b"c")?, Some(Bytes::new()), "an empty value is there");
    assert_eq!(engine.get(b"x")?, None);

    assert_eq!(keys(engine, "", None, usize::MAX)?, ["a", "b", "bb", "c"], "keys come in order");
    assert_eq!(keys(engine, "b", Some("c"), usize::MAX)?, ["b", "bb"], "the end is not in the range");
    assert_eq!(keys(engine, "b", None, 2)?, ["b", "bb"], "a visitor stops the scan");
    assert_eq!(keys(engine, "c", Some("a"), usize::MAX)?, [] as [Bytes; 0], "an inverted range is empty");
    assert_eq!(keys(engine, "b", Some("b"), usize::MAX)?, [] as [Bytes; 0], "an empty range is empty");

    let batch = vec![put("a", "2"), Write::Delete("b".into()), Write::Delete("x".into()), put("d", "1"), put("d", "2")];
    engine.apply(Batch { writes: batch })?;
    assert_eq!(engine.get(b"a")?, Some("2".into()));
    assert_eq!(engine.get(b"b")?, None);
    assert_eq!(engine.get(b"d")?, Some("2".into()), "changes are applied in order");
    engine.apply(Batch { writes: vec![put("e", "1"), Write::Delete("e".into())] })?;
    assert_eq!(engine.get(b"e")?, None, "changes are applied in order");

    let large = Bytes::from(vec![7; 1 << 20]);
    engine.apply(Batch { writes: vec![Write::Put("large".into(), large.clone())] })?;
    assert_eq!(engine.get(b"large")?, Some(large));

    batches_are_atomic(engine)?;
    engine.clear()?;
    assert_eq!(keys(engine, "", None, usize::MAX)?, [] as [Bytes; 0], "it is empty again");
    Ok(())
}

/// A reader beside a writer that moves two keys together never sees them apart.
fn batches_are_atomic(engine: &dyn Engine) -> Result<(), EngineError> {
    let both = |i: u32| {
        let value = Bytes::copy_from_slice(&i.to_be_bytes());
        Batch { writes: vec![Write::Put("pair/1".into(), value.clone()), Write::Put("pair/2".into(), value)] }
    };
    engine.apply(both(0))?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || (1..500).try_for_each(|i| engine.apply(both(i))));
        while !writer.is_finished() {
            // Newer in the first of the two reads would mean that the batch came in parts.
            let (first, second) = (engine.get(b"pair/2")?, engine.get(b"pair/1")?);
            assert!(first <= second, "half a batch was seen: {first:?} and then {second:?}");
            let (first, second) = (engine.get(b"pair/1")?, engine.get(b"pair/2")?);
            assert!(first <= second, "half a batch was seen: {first:?} and then {second:?}");
        }
        writer.join().expect("the writer does not panic")
    })
}
