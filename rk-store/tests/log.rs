//! The log: what it was told is synced is there again, wherever the power is cut.

#![cfg(feature = "log")]

use std::{path::Path, sync::Arc};

use rk_store::{
    Error,
    log::{Log, LogBatch, LogOptions, LogWriter},
    testing::disk::{FaultDisk, Survives},
};

const DIR: &str = "data";

fn open(disk: &FaultDisk) -> Result<Log, Error> {
    let mut options = LogOptions::default();
    (options.segment_bytes, options.spare_segments) = (300, 2);
    Log::open(Path::new(DIR), Arc::new(disk.clone()), options)
}

fn entry(batch: &mut LogBatch, index: u64, text: &str) {
    batch.entry(index, |out| out.extend_from_slice(text.as_bytes()));
}

fn batch(from: u64, texts: &[&str]) -> LogBatch {
    let mut batch = LogBatch::default();
    for (index, text) in (from..).zip(texts) {
        entry(&mut batch, index, text);
    }
    batch
}

fn texts(log: &Log) -> Vec<String> {
    let reader = log.reader();
    let entries = reader.entries(reader.first()..reader.next(), usize::MAX).unwrap();
    entries.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

#[test]
fn entries_replace_those_from_their_index_on() {
    let disk = FaultDisk::new(1);
    let mut log = open(&disk).unwrap();
    log.append(&[batch(1, &["a", "b", "c"]), batch(2, &["x"])]).unwrap();
    assert_eq!(texts(&log), ["a", "x"]);
    let mut cut = LogBatch::default();
    cut.cut(2);
    cut.state(b"a vote");
    log.append(&[cut]).unwrap();
    drop(log);
    let mut log = open(&disk).unwrap();
    assert_eq!((texts(&log), log.reader().state()), (vec!["a".to_owned()], Some("a vote".into())));
    assert!(matches!(log.append(&[batch(3, &["a gap"])]), Err(Error::Invalid(_))));
    let mut reset = LogBatch::default();
    reset.reset(100);
    entry(&mut reset, 100, "after a snapshot");
    log.append(&[reset]).unwrap();
    assert!(matches!(log.append(&[batch(99, &["before it"])]), Err(Error::Invalid(_))));
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!((log.reader().first(), texts(&log)), (100, vec!["after a snapshot".to_owned()]));
    assert_eq!(log.reader().state(), Some("a vote".into()));
}

#[test]
fn what_is_dropped_makes_room() {
    let disk = FaultDisk::new(1);
    let mut log = open(&disk).unwrap();
    let mut largest = 0;
    for index in 1..=500 {
        let mut batch = batch(index, &["some text that fills segments"]);
        batch.state(&index.to_le_bytes());
        log.append(&[batch]).unwrap();
        log.drop_before(index.saturating_sub(9)).unwrap();
        largest = largest.max(log.reader().size());
    }
    assert!(largest < 2000, "{largest} bytes");
    assert_eq!((log.reader().first(), log.reader().next()), (491, 501));
    drop(log);
    let log = open(&disk).unwrap();
    assert!((480..=491).contains(&log.reader().first()));
    assert_eq!(texts(&log).len() as u64, 501 - log.reader().first());
    assert_eq!(log.reader().state(), Some(500_u64.to_le_bytes().to_vec().into()));
}

#[test]
fn a_read_is_as_long_as_asked_for_and_not_empty() {
    let mut log = open(&FaultDisk::new(1)).unwrap();
    log.append(&[batch(1, &["four", "five ", "six..."])]).unwrap();
    let lengths = |from, bytes| log.reader().entries(from..100, bytes).unwrap().len();
    assert_eq!((lengths(1, 9), lengths(1, 8), lengths(3, 0), lengths(4, 100)), (2, 1, 1, 0));
}

/// At each sync of a history with replaced entries, new beginnings, dropped segments and reused files.
#[test]
fn a_power_cut_at_any_sync_loses_nothing_that_was_acknowledged() {
    for seed in 0..4 {
        let disk = FaultDisk::new(seed);
        disk.record();
        let mut log = open(&disk).unwrap();
        // After so many changes of the disk the log holds these entries, from this index on.
        let mut history = vec![(disk.recorded(), 1, Vec::new())];
        let (mut from, mut expected): (u64, Vec<String>) = (1, Vec::new());
        for step in 0..60_u64 {
            let mut batch = LogBatch::default();
            match (step + seed) % 7 {
                3 if expected.len() > 3 => expected.truncate(expected.len() - 2),
                5 if step > 30 && step < 37 => {
                    from += expected.len() as u64 + 5;
                    expected.clear();
                    batch.reset(from);
                }
                _ => {}
            }
            for _ in 0..step % 3 + 1 {
                let text = format!("step {step} {}", "x".repeat((step * 7 % 50) as usize));
                entry(&mut batch, from + expected.len() as u64, &text);
                expected.push(text);
            }
            log.append(&[batch]).unwrap();
            history.push((disk.recorded(), from, expected.clone()));
            if step % 11 == 0 {
                log.drop_before((from + expected.len() as u64).saturating_sub(4)).unwrap();
            }
        }
        let mut cuts = 0;
        disk.replay(seed, |done, disk| {
            for survives in [Survives::Nothing, Survives::Prefix, Survives::Sectors] {
                let log = match open(&disk.copy(survives)) {
                    Ok(log) => log,
                    Err(error) => panic!("seed {seed}, after {done} changes, {survives:?}: {error}"),
                };
                let (first, found) = (log.reader().first(), texts(&log));
                let acknowledged = history.iter().rposition(|(at, ..)| *at <= done).unwrap_or(0);
                // What was acknowledged, or that and what came next; entries at the front may have been dropped.
                let fits = history[acknowledged..].iter().take(2).any(|(_, from, entries)| {
                    let end = from + entries.len() as u64;
                    let same = first.max(*from);
                    first + found.len() as u64 == end
                        && same <= end
                        && found[(same - first) as usize..] == entries[(same - from) as usize..]
                });
                assert!(fits, "seed {seed}, after {done} changes, {survives:?}: {first} {found:?}");
                cuts += 1;
            }
        });
        assert!(cuts > 300, "{cuts} cuts test nothing");
    }
}

#[tokio::test]
async fn writers_that_wait_share_a_sync() {
    let disk = FaultDisk::new(1);
    disk.record();
    let writer = LogWriter::new(open(&disk).unwrap());
    let before = disk.recorded();
    let (told, mut done) = tokio::sync::mpsc::unbounded_channel();
    for index in 1..=8 {
        let told = told.clone();
        writer.submit(batch(index, &["x"]), move |result| told.send((index, result.is_ok())).unwrap());
    }
    for index in 1..=8 {
        assert_eq!(done.recv().await, Some((index, true)));
    }
    assert_eq!(disk.recorded() - before, 2, "one write and one sync");
    assert!(writer.append(batch(20, &["a gap"])).await.is_err());
    writer.append(batch(9, &["x"])).await.unwrap();
    writer.drop_before(5).await.unwrap();
    assert_eq!((writer.reader().first(), writer.reader().next()), (5, 10));
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let disk = FaultDisk::new(1);
    let mut log = open(&disk).unwrap();
    log.append(&[batch(1, &["a"])]).unwrap();
    for free in 0..40 {
        disk.set_free(Some(free));
        assert!(matches!(log.append(&[batch(2, &["refused, for want of space"])]), Err(Error::NoSpace(_))), "{free}");
        let log = open(&disk.copy(Survives::Sectors)).unwrap();
        assert_eq!(texts(&log), ["a"]);
    }
    disk.set_free(None);
    log.append(&[batch(2, &["b"])]).unwrap();
    assert_eq!(texts(&log), ["a", "b"]);
}

#[test]
fn a_failed_sync_ends_the_log() {
    let disk = FaultDisk::new(1);
    let mut log = open(&disk).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(log.append(&[batch(1, &["a"])]), Err(Error::Unavailable(_))));
    disk.fail_syncs(false);
    assert!(matches!(log.append(&[batch(1, &["a"])]), Err(Error::Unavailable(_))));
}

#[test]
fn damage_of_an_entry_is_found_when_it_is_read() {
    let disk = FaultDisk::new(1);
    let mut log = open(&disk).unwrap();
    log.append(&[batch(1, &["a", "b"])]).unwrap();
    let path = Path::new(DIR).join("log-0000000000000001");
    disk.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
    assert_eq!(log.reader().entries(1..2, 100).unwrap(), ["a"]);
    let error = log.reader().entries(1..3, 100).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == path.display().to_string()), "{error}");
}
