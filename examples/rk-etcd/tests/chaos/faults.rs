//! What goes wrong.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{member::Group, world::IDS};

/// Makes things go wrong until `until` in milliseconds of the scene, one after another and beside each other.
pub async fn make(group: Arc<Group>, seed: u64, until: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut over = Vec::new();
    loop {
        let pause = Duration::from_millis(random.random_range(500..5000));
        group.supervised(tokio::time::sleep(pause)).await;
        if group.scene.now() >= until {
            break;
        }
        over.push(tokio::spawn(one(group.clone(), random.random())));
    }
    for fault in over {
        fault.await.unwrap();
    }
}

/// Makes one thing go wrong, and right again.
async fn one(group: Arc<Group>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ids = IDS;
    ids.shuffle(&mut random);
    let time = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));
    match random.random_range(0..10) {
        kind @ 0..4 => {
            let killed = &ids[..if kind < 3 { 1 } else { random.random_range(2..=3) }];
            group.count(if kind < 3 { "one killed" } else { "several killed" });
            killed.iter().for_each(|id| group.kill(*id));
            time(if random.random_bool(0.4) { 1 } else { random.random_range(10..4000) }).await;
            killed.iter().for_each(|id| group.restart(*id));
        }
        4..7 => {
            group.cut(&links(&group, ids, &mut random));
            time(random.random_range(500..5000)).await;
            group.cut(&BTreeSet::new());
        }
        7..9 => {
            let paused = &ids[..random.random_range(1..=2)];
            group.count("paused");
            paused.iter().for_each(|id| group.pause(*id, true));
            time(random.random_range(100..4000)).await;
            paused.iter().for_each(|id| group.pause(*id, false));
        }
        _ => {
            group.count("disk full");
            group.fill(ids[0], true);
            let writes = write_much(&group, ids[1], random.random());
            // It need not come to an end.
            let _ended = tokio::time::timeout(Duration::from_secs(3), writes).await;
            time(random.random_range(100..3000)).await;
            group.fill(ids[0], false);
        }
    }
}

/// Writes so much that a member with a full disk can't get by with the space that it has taken ahead.
async fn write_much(group: &Group, through: u64, seed: u64) {
    let store = group.store(through);
    for i in 0..200 {
        // No two are alike, as for the other clients.
        let value = format!("{seed} {i} {}", "x".repeat(64 << 10));
        if store.put(format!("much/{}", i % 4).into(), value.into()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Links to cut: one member alone, one that hears nobody or is heard by nobody, or two that reach each other only over the third.
fn links(group: &Group, ids: [u64; 3], random: &mut StdRng) -> BTreeSet<(u64, u64)> {
    let [one, two, three] = ids;
    let (kind, links) = match random.random_range(0..5) {
        0 => ("one cut off", vec![(one, two), (two, one), (one, three), (three, one)]),
        1 => ("one deaf", vec![(two, one), (three, one)]),
        2 => ("one unheard", vec![(one, two), (one, three)]),
        3 => ("bridge", vec![(one, two), (two, one)]),
        _ => ("all apart", IDS.into_iter().flat_map(|a| IDS.map(|b| (a, b))).filter(|(a, b)| a != b).collect()),
    };
    group.count(kind);
    links.into_iter().collect()
}
