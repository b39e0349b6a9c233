//! Those who write, and those who list.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_api::{DeleteOptions, Error, ListOptions, Object, Patch, Request, Resource, Verb, WriteOptions};
use serde_json::{Value, json};

use super::{
    hook::Fate,
    log::{GROUPS, NAMESPACES, Name, Selection, Version},
    plane::World,
};

/// Objects that each writer has, or has deleted.
const OBJECTS: usize = 32;

/// What was done.
#[derive(Debug, Default)]
pub struct Counts {
    pub creates: AtomicU64,
    pub updates: AtomicU64,
    pub patches: AtomicU64,
    pub deletes: AtomicU64,
    pub gets: AtomicU64,
    pub lists: AtomicU64,
    /// Writes that failed with their webhook.
    pub refused: AtomicU64,
    /// Requests that a life of the control plane did not answer.
    pub broken: AtomicU64,
    pub watches: AtomicU64,
    pub events: AtomicU64,
    /// Watches that had to begin with a list again.
    pub expired: AtomicU64,
}

/// Counts one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The source of an actor's choices.
pub fn choices(seed: u64, actor: usize) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1 << 16).wrapping_add(actor as u64))
}

/// The collections' resources.
pub fn resource(collection: usize) -> Resource {
    match collection {
        0 => Resource::new("", "v1", "ConfigMap", "configmaps", true),
        _ => Resource::new("soak.example.com", "v1", "Sample", "samples", true),
    }
}

/// What a writer knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Absent,
    /// At this revision, by this write.
    Present(u64, u64),
    /// The answer to the last write did not come.
    Doubtful,
}

/// Writes to its own objects, one request after the other.
pub struct Writer {
    pub world: Arc<World>,
    pub counts: Arc<Counts>,
    pub number: usize,
    /// The mean pause between two requests.
    pub pace: Duration,
    pub choices: StdRng,
}

impl Writer {
    /// Writes until it is over.
    pub async fn run(mut self) {
        let mut known = [Known::Absent; OBJECTS];
        while !self.world.over.is_cancelled() {
            let at = self.choices.random_range(0..OBJECTS);
            let name = Name { collection: at / 4 % 2, namespace: at % 4, name: format!("writer-{}-{at}", self.number) };
            known[at] = self.turn(&name, known[at]).await;
            tokio::time::sleep(self.pace.mul_f64(self.choices.random_range(0.0..2.0))).await;
        }
    }

    /// One request about an object.
    async fn turn(&mut self, name: &Name, known: Known) -> Known {
        let serial = self.world.serials.fetch_add(1, Ordering::Relaxed);
        let verb = match known {
            Known::Doubtful => Verb::Get,
            Known::Absent => Verb::Create(self.body(name, serial), WriteOptions::default()),
            Known::Present(revision, _) => match self.choices.random_range(0..10) {
                0 => Verb::Get,
                1 | 2 => Verb::Delete(DeleteOptions::default()),
                3..6 => {
                    let mut body = self.body(name, serial);
                    body["metadata"]["resourceVersion"] = revision.to_string().into();
                    Verb::Update(body, WriteOptions::default())
                }
                6 => Verb::Patch(Patch::apply(self.body(name, serial)).force(), WriteOptions::manager("soak")),
                _ => Verb::Patch(Patch::merge(self.body(name, serial)), WriteOptions::default()),
            },
        };
        let plane = self.world.plane().await;
        let (deletes, gets) = (matches!(verb, Verb::Delete(_)), matches!(verb, Verb::Get));
        let counter = match verb {
            Verb::Get => &self.counts.gets,
            Verb::Create(..) => &self.counts.creates,
            Verb::Update(..) => &self.counts.updates,
            Verb::Patch(..) => &self.counts.patches,
            Verb::Delete(_) => &self.counts.deletes,
        };
        count(counter);
        let what = format!("{name:?}, {known:?}, write {serial}");
        let request = Request {
            resource: resource(name.collection),
            namespace: NAMESPACES[name.namespace].to_owned(),
            name: if matches!(verb, Verb::Create(..)) { String::new() } else { name.name.clone() },
            subresource: String::new(),
            verb,
        };
        let fate = match name.namespace {
            0 if !deletes && !gets => self.world.log.fate(serial),
            _ => Fate::Answers,
        };
        let now = match plane.client(self.number).request(request).await {
            Ok(_) if deletes => Known::Absent,
            Ok(object) => {
                let version = Version::of(&object);
                assert!(gets || version.serial == serial, "{what}: the answer is {object:?} of {}", version.serial);
                assert_eq!(fate, Fate::Answers, "{what}: the webhook was not heard");
                Known::Present(object.revision(), version.serial)
            }
            Err(error) if gets && error.is_not_found() => Known::Absent,
            Err(error) if fate != Fate::Answers && error.to_string().contains("failed calling webhook") => {
                count(&self.counts.refused);
                known
            }
            Err(error) => {
                self.world.excuse(plane.life, &what, &error);
                count(&self.counts.broken);
                return Known::Doubtful;
            }
        };
        let written = if let Known::Present(revision, serial) = now { Some((revision, serial)) } else { None };
        self.world.acknowledge(written.map_or(0, |(revision, _)| revision));
        // A write that was in doubt and is there after all is told by the next read; nothing else may differ.
        if known != Known::Doubtful && gets {
            assert_eq!(now, known, "{what}");
        }
        self.world.log.expect(name, written).await;
        now
    }

    fn body(&mut self, name: &Name, serial: u64) -> Value {
        let resource = resource(name.collection);
        let group = GROUPS[self.choices.random_range(0..GROUPS.len())];
        json!({"apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": name.name, "namespace": NAMESPACES[name.namespace], "labels": {"group": group},
                "annotations": {"serial": serial.to_string()}},
            "data": {"filling": "x".repeat(self.choices.random_range(0..1000))}})
    }
}

/// Any part of a collection.
pub fn select(choices: &mut StdRng) -> Selection {
    Selection {
        collection: choices.random_range(0..2),
        namespace: choices.random_bool(0.7).then(|| choices.random_range(0..NAMESPACES.len())),
        group: choices.random_bool(0.6).then(|| (choices.random_range(0..GROUPS.len()), choices.random_bool(0.7))),
        name: None,
    }
}

/// Lists a selection, by pages of `limit` if that is not 0, and compares it with the store's log; its version.
///
/// # Errors
/// Those of the client.
pub async fn list(
    world: &World,
    client: &dyn rk_api::Client,
    selection: &Selection,
    mut options: ListOptions,
) -> Result<u64, Error> {
    (options.labels, options.fields) = (selection.labels(), selection.fields());
    let (newest, acknowledged) = (options.resource_version.is_empty(), world.acknowledged.load(Ordering::SeqCst));
    let (mut items, mut version): (Vec<Arc<Object>>, _) = (Vec::new(), None);
    loop {
        let page = client.list(&resource(selection.collection), selection.namespace(), options.clone()).await?;
        items.extend(page.items);
        let revision: u64 = page.resource_version.parse().expect("a revision");
        assert_eq!(*version.get_or_insert(revision), revision, "a page of another list");
        if page.continue_token.is_empty() {
            break;
        }
        options.continue_token = page.continue_token;
        options.resource_version.clear();
    }
    let version = version.expect("there is a page");
    assert!(!newest || version >= acknowledged, "the list at {version} lacks what was acknowledged at {acknowledged}");
    world.log.wait(version).await;
    let shown: Vec<_> = items
        .iter()
        .filter_map(|object| Some((Name::of(selection.collection, object)?, object.revision(), Version::of(object))))
        .collect();
    let stored = world.log.state(selection, version);
    assert!(shown == stored, "the list of {selection:?} at {version} shows\n{shown:?}\nand the store has\n{stored:?}");
    Ok(version)
}

/// Lists until it is over.
pub async fn keep_listing(
    world: Arc<World>,
    counts: Arc<Counts>,
    (number, pace): (usize, Duration),
    mut choices: StdRng,
) {
    while !world.over.is_cancelled() {
        let selection = select(&mut choices);
        let limit = if choices.random_bool(0.5) { 0 } else { choices.random_range(3..40) };
        let resource_version = if choices.random_bool(0.7) { "" } else { "0" }.to_owned();
        let plane = world.plane().await;
        count(&counts.lists);
        let options = ListOptions { limit, resource_version, ..ListOptions::default() };
        match list(&world, plane.client(number), &selection, options).await {
            Ok(_) => {}
            // A page of what was compacted meanwhile.
            Err(error) if limit > 0 && error.is_expired() => count(&counts.expired),
            Err(error) => {
                world.excuse(plane.life, &format!("{selection:?}"), &error);
                count(&counts.broken);
            }
        }
        tokio::time::sleep(pace.mul_f64(choices.random_range(0.0..2.0))).await;
    }
}
