//! The checks of an [`Engine`].

use bytes::Bytes;

use crate::{Engine, EngineError, Position, Record};

fn at(revision: u64, rank: u32) -> Position {
    Position { revision, rank }
}

/// A record whose head is all but the last byte.
fn record(at: Position, text: &str) -> Record {
    Record { at, bytes: Bytes::copy_from_slice(text.as_bytes()), head: text.len().saturating_sub(1) }
}

fn places(engine: &dyn Engine, from: Position, end: Position, limit: usize) -> Result<Vec<Position>, EngineError> {
    let mut found = Vec::new();
    engine.scan(from, end, &mut |at, _| {
        found.push(at);
        found.len() < limit
    })?;
    Ok(found)
}

fn all(engine: &dyn Engine) -> Result<Vec<Position>, EngineError> {
    places(engine, at(0, 0), at(u64::MAX, 0), usize::MAX)
}

/// Runs every check on a new, empty engine.
pub fn conformance(engine: &dyn Engine) -> Result<(), EngineError> {
    assert_eq!(all(engine)?, [], "it begins empty");
    assert_eq!(engine.size_in_use(), 0);
    engine.append(vec![record(at(2, 0), "first"), record(at(2, 1), "second")])?;
    engine.append(vec![record(at(3, 0), "third"), record(at(4, 0), ""), record(at(9, 7), "fifth")])?;
    assert_eq!(engine.get(at(2, 1))?, Some("second".into()));
    assert_eq!(engine.get(at(4, 0))?, Some(Bytes::new()), "an empty record is there");
    assert_eq!(engine.get(at(2, 2))?, None);
    assert_eq!(engine.get(at(5, 0))?, None);
    assert!(engine.size_in_use() >= 21);

    let four = [at(2, 0), at(2, 1), at(3, 0), at(4, 0)];
    assert_eq!(
        places(engine, at(0, 0), at(9, 7), usize::MAX)?,
        four,
        "records come in order, the end is not in the range"
    );
    assert_eq!(places(engine, at(2, 1), at(9, 8), usize::MAX)?, [at(2, 1), at(3, 0), at(4, 0), at(9, 7)]);
    assert_eq!(places(engine, at(2, 1), at(99, 0), 2)?, [at(2, 1), at(3, 0)], "a visitor stops the scan");
    assert_eq!(places(engine, at(3, 0), at(2, 0), usize::MAX)?, [], "an inverted range is empty");
    assert_eq!(places(engine, at(3, 0), at(3, 0), usize::MAX)?, [], "an empty range is empty");

    engine.remove(&[at(2, 1), at(4, 0), at(5, 0)])?;
    engine.remove(&[at(2, 1)])?;
    assert_eq!(all(engine)?, [at(2, 0), at(3, 0), at(9, 7)]);
    assert_eq!((engine.get(at(2, 1))?, engine.get(at(3, 0))?), (None, Some("third".into())));

    let large = "large ".repeat(200_000);
    engine.append(vec![record(at(10, 0), &large)])?;
    assert_eq!(engine.get(at(10, 0))?, Some(large.into()));
    assert!(engine.size_in_use() >= 1_200_000);
    engine.make_room()?;

    readers_work_beside_a_writer(engine)?;
    engine.clear()?;
    assert_eq!(all(engine)?, [], "it is empty again");
    assert_eq!(engine.size_in_use(), 0);
    engine.append(vec![record(at(2, 0), "new")])?;
    assert_eq!(engine.get(at(2, 0))?, Some("new".into()), "positions begin anew after a clear");
    Ok(())
}

/// What was added is there for every reader, whatever is added and removed meanwhile.
fn readers_work_beside_a_writer(engine: &dyn Engine) -> Result<(), EngineError> {
    let text = |revision: u64| format!("{revision} {}", "x".repeat(revision as usize % 3000));
    let (from, to) = (20, 3000);
    let added = std::sync::atomic::AtomicU64::new(from);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<(), EngineError> {
            for revision in from..to {
                engine.append(vec![record(at(revision, 0), &text(revision))])?;
                added.store(revision + 1, std::sync::atomic::Ordering::Release);
                if revision % 10 == 0 {
                    engine.make_room()?;
                    engine.remove(&[at(revision - 5, 0)])?;
                }
            }
            Ok(())
        });
        let mut random = 1_u64;
        while !writer.is_finished() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let added = added.load(std::sync::atomic::Ordering::Acquire);
            let revision = from + (random >> 33) % (added - from).max(1);
            if revision < added && revision % 10 != 5 {
                assert_eq!(engine.get(at(revision, 0))?, Some(text(revision).into()), "record {revision} of {added}");
            }
        }
        writer.join().expect("the writer does not panic")
    })
}

/// Checks of an engine that persists: `open` opens it on what the one before has left.
pub fn persistence(
    mut open: impl FnMut() -> Result<std::sync::Arc<dyn Engine>, EngineError>,
) -> Result<(), EngineError> {
    let heads = |engine: &dyn Engine| {
        let mut found = Vec::new();
        engine.heads(&mut |at, head| {
            found.push((at.revision, String::from_utf8_lossy(&head).into_owned()));
            Ok(())
        })?;
        Ok::<_, EngineError>(found)
    };
    let pair = |revision: u64, head: &str| (revision, head.to_owned());
    let engine = open()?;
    assert!(engine.persists());
    assert_eq!(engine.persisted()?, None, "nothing was persisted");
    for revision in 2..8 {
        engine.append(vec![record(at(revision, 0), &format!("{revision}"))])?;
    }
    engine.remove(&[at(3, 0)])?;
    engine.persist(6, b"first", false)?;
    engine.append(vec![record(at(8, 0), "lost")])?;
    engine.remove(&[at(2, 0)])?;
    drop(engine);

    let engine = open()?;
    assert_eq!(engine.persisted()?, Some("first".into()));
    assert_eq!(heads(&*engine)?, [pair(2, ""), pair(4, ""), pair(5, ""), pair(6, "")]);
    assert_eq!((engine.get(at(2, 0))?, engine.get(at(7, 0))?), (Some("2".into()), None));
    engine.append(vec![record(at(7, 0), "seven"), record(at(7, 1), "and more")])?;
    engine.remove(&[at(4, 0), at(2, 0)])?;
    engine.persist(7, b"second", true)?;
    assert_eq!(engine.get(at(7, 0))?, Some("seven".into()));
    drop(engine);

    let engine = open()?;
    assert_eq!(engine.persisted()?, Some("second".into()));
    assert_eq!(heads(&*engine)?, [pair(5, ""), pair(6, ""), pair(7, "seve"), pair(7, "and mor")]);
    assert_eq!(all(&*engine)?, [at(5, 0), at(6, 0), at(7, 0), at(7, 1)]);
    engine.clear()?;
    engine.append(vec![record(at(2, 0), "other")])?;
    drop(engine);

    let engine = open()?;
    assert_eq!(engine.persisted()?, Some("second".into()), "a clear that was not persisted leaves what was");
    assert_eq!(engine.get(at(6, 0))?, Some("6".into()));
    engine.clear()?;
    engine.append(vec![record(at(2, 0), "other")])?;
    engine.persist(2, b"", false)?;
    drop(engine);

    let engine = open()?;
    assert_eq!((engine.persisted()?, engine.get(at(2, 0))?), (Some(Bytes::new()), Some("other".into())));
    assert_eq!(all(&*engine)?, [at(2, 0)]);
    Ok(())
}
