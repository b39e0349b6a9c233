//! What goes wrong in a run.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{group::Group, network::Quality};
use crate::MemberId;

/// Makes things go wrong until `until` in milliseconds of the run, one after another and beside each other.
pub(crate) async fn make(group: Arc<Group>, seed: u64, until: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    // Each run has faults of its own, so that the rest of the time they do not hide each other.
    let kinds: Vec<_> = (0..KINDS).filter(|_| random.random_bool(0.5)).collect();
    loop {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..2500))).await;
        if group.trace.now() >= until {
            return;
        }
        match kinds.get(random.random_range(0..kinds.len().max(1))) {
            Some(0) => crash(&group, &mut random, 1),
            Some(1) => {
                let count = random.random_range(1..=group.ids().len());
                crash(&group, &mut random, count);
            }
            Some(2) => group.network.cut(links(&group.ids(), &mut random)),
            Some(3) => group.network.set_quality(quality(&mut random)),
            Some(4) => disk(&group, &mut random),
            _ => {
                group.network.cut(BTreeSet::new());
                group.network.set_quality(Quality::default());
            }
        }
    }
}

/// Kinds of faults in [`make`].
const KINDS: usize = 5;

/// Crashes members, each for a while.
fn crash(group: &Arc<Group>, random: &mut StdRng, count: usize) {
    let mut ids = group.ids();
    ids.shuffle(random);
    for &id in ids[..count].iter().filter(|&&id| group.runs(id)) {
        group.crash(id);
        let away = Duration::from_millis(if random.random_bool(0.4) { 1 } else { random.random_range(10..4000) });
        let group = group.clone();
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            group.start(id).await;
        });
    }
}

/// Makes a disk slow, full or broken for a while. One whose syncs fail is given up by its member, which starts again on another.
fn disk(group: &Arc<Group>, random: &mut StdRng) {
    let ids = group.ids();
    let id = ids[random.random_range(0..ids.len())];
    let (disk, kind) = (group.disk(id), random.random_range(0..3));
    let time = Duration::from_millis(random.random_range(100..3000));
    match kind {
        0 => disk.set_slowest(Some(random.random_range(10..600))),
        1 => disk.set_full(true),
        _ => disk.fail_syncs(),
    }
    group.trace.tell(|| format!("the disk of {id} is {} for {time:?}", ["slow", "full", "broken"][kind]));
    let group = group.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        match kind {
            0 => disk.set_slowest(None),
            1 => disk.set_full(false),
            _ => {
                group.crash(id);
                group.start(id).await;
            }
        }
    });
}

/// Links to cut: one member, two sides, one direction, a bridge, or any.
fn links(ids: &[MemberId], random: &mut StdRng) -> BTreeSet<(MemberId, MemberId)> {
    if ids.len() < 2 {
        return BTreeSet::new();
    }
    let mut order = ids.to_vec();
    order.shuffle(random);
    let mut sides = order.split_at(random.random_range(1..ids.len()));
    let all = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b);
    match random.random_range(0..5) {
        0 => {
            // One member alone.
            let alone = order[0];
            all.filter(|&(a, b)| a == alone || b == alone).collect()
        }
        1 => {
            // Two sides.
            all.filter(|(a, b)| sides.0.contains(a) != sides.0.contains(b)).collect()
        }
        2 => {
            // One side does not hear the other.
            if random.random_bool(0.5) {
                std::mem::swap(&mut sides.0, &mut sides.1);
            }
            all.filter(|(a, b)| sides.0.contains(a) && sides.1.contains(b)).collect()
        }
        3 => {
            // Two sides with a bridge: one member that hears all.
            let bridge = order[0];
            let (one, other) = order[1..].split_at((order.len() - 1) / 2);
            let apart = |a: &MemberId, b: &MemberId| one.contains(a) && other.contains(b);
            all.filter(|(a, b)| *a != bridge && *b != bridge && (apart(a, b) || apart(b, a))).collect()
        }
        _ => {
            let share = random.random_range(0.1..0.6);
            all.filter(|_| random.random_bool(share)).collect()
        }
    }
}

fn quality(random: &mut StdRng) -> Quality {
    let slowest = [5, 30, 200, 800][random.random_range(0..4)];
    Quality {
        loss: [0.0, 0.02, 0.2][random.random_range(0..3)],
        doubled: [0.0, 0.05, 0.3][random.random_range(0..3)],
        delay: 1..slowest,
    }
}
