//! The store's own log of changes, and what it says that lists and watchers have to show.

use std::{collections::HashMap, fmt, time::Duration};

use futures::StreamExt;
use parking_lot::RwLock;
use rk_api::{FieldSelector, LabelSelector, Object};
use rk_store::{Event, EventKind, KeyRange, Revision, Store, WatchRequest};
use tokio::{sync::watch, time::timeout};

use super::hook::{Fate, Hook, IGNORED, OBEYED};

/// How long anything may take that has to happen: far more than it does on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the collections of the soak lie in the store.
pub const COLLECTIONS: [&str; 2] = ["configmaps", "soak.example.com/samples"];
/// Writes of the first are shown to the webhooks.
pub const NAMESPACES: [&str; 4] = ["soak-0", "soak-1", "soak-2", "soak-3"];
/// Values of the label `group`.
pub const GROUPS: [&str; 3] = ["red", "green", "blue"];

/// An object: its collection and namespace, as numbers, and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub collection: usize,
    pub namespace: usize,
    pub name: String,
}

impl Name {
    /// `None` for what is no object of the soak.
    pub fn of(collection: usize, object: &Object) -> Option<Self> {
        let namespace = NAMESPACES.iter().position(|known| *known == object.meta().namespace)?;
        Some(Self { collection, namespace, name: object.meta().name.clone() })
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix("/registry/")?;
        let (collection, rest) = COLLECTIONS
            .iter()
            .enumerate()
            .find_map(|(at, name)| Some((at, path.strip_prefix(name)?.strip_prefix('/')?)))?;
        let (namespace, name) = rest.split_once('/')?;
        let namespace = NAMESPACES.iter().position(|known| *known == namespace)?;
        Some(Self { collection, namespace, name: name.to_owned() })
    }
}

/// One version of an object: the number of the write that made it, and its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub serial: u64,
    pub group: usize,
}

impl Version {
    pub fn of(object: &Object) -> Self {
        let meta = object.meta();
        let group = GROUPS.iter().position(|group| *group == meta.labels["group"]).expect("a known group");
        Self { serial: meta.annotations["serial"].parse().expect("a number"), group }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    revision: Revision,
    object: u32,
    before: Option<Version>,
    after: Option<Version>,
}

/// Part of a collection.
#[derive(Debug, Clone)]
pub struct Selection {
    pub collection: usize,
    pub namespace: Option<usize>,
    /// A group, and whether it is the one that is wanted or the one that is not.
    pub group: Option<(usize, bool)>,
    pub name: Option<String>,
}

impl Selection {
    pub fn namespace(&self) -> &'static str {
        self.namespace.map_or("", |at| NAMESPACES[at])
    }

    pub fn labels(&self) -> LabelSelector {
        let text = match self.group {
            None => String::new(),
            Some((group, wanted)) => format!("group{}{}", if wanted { "=" } else { "!=" }, GROUPS[group]),
        };
        text.parse().expect("a selector")
    }

    pub fn fields(&self) -> FieldSelector {
        self.name.as_ref().map_or_else(FieldSelector::default, |name| FieldSelector::field("metadata.name", name))
    }

    fn covers(&self, name: &Name, version: Option<Version>) -> bool {
        version.is_some_and(|version| {
            self.collection == name.collection
                && self.namespace.is_none_or(|namespace| namespace == name.namespace)
                && self.group.is_none_or(|(group, wanted)| (group == version.group) == wanted)
                && self.name.as_ref().is_none_or(|own| *own == name.name)
        })
    }
}

/// What an event tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub revision: Revision,
    pub kind: Kind,
    pub object: u32,
    pub version: Version,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} #{} write {}", self.revision, self.kind, self.object, self.version.serial)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

#[derive(Default)]
struct Table {
    changes: Vec<Change>,
    names: Vec<Name>,
    numbers: HashMap<Name, u32>,
    /// The changes of each object, by their places.
    of: Vec<Vec<u32>>,
}

impl Table {
    fn number(&mut self, name: Name) -> u32 {
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            self.of.push(Vec::new());
            self.names.len() as u32 - 1
        })
    }

    /// The last change of an object up to a revision.
    fn at(&self, object: u32, revision: Revision) -> Option<&Change> {
        let of = &self.of[object as usize];
        let count = of.partition_point(|place| self.changes[*place as usize].revision <= revision);
        Some(&self.changes[of[count.checked_sub(1)?] as usize])
    }

    fn after(&self, revision: Revision) -> &[Change] {
        &self.changes[self.changes.partition_point(|change| change.revision <= revision)..]
    }

    /// The change that an event of the store is; `None` if it is of no object of the soak.
    fn change(&mut self, event: &Event) -> Option<Change> {
        let (name, revision) = (Name::of_key(&event.kv.key)?, event.kv.mod_revision);
        let object = self.number(name);
        let before = self.at(object, revision - 1).and_then(|change| change.after);
        let after = match event.kind {
            EventKind::Put => Some(Version::of(&Object::from_json(event.kv.value.clone()).expect("an object"))),
            EventKind::Delete => None,
        };
        Some(Change { revision, object, before, after })
    }
}

/// See the module's description. It reads the store beside the API server, from before the first object of the soak on.
pub struct Log {
    table: RwLock<Table>,
    reached: watch::Sender<Revision>,
    /// It tells what comes after this.
    pub began: Revision,
    hook: Hook,
}

impl Log {
    /// The log of what comes after a revision.
    pub fn new(after: Revision, hook: Hook) -> Self {
        Self { table: RwLock::default(), reached: watch::channel(after).0, began: after, hook }
    }

    /// What becomes of a write that the webhooks see.
    pub fn fate(&self, serial: u64) -> Fate {
        self.hook.fate(OBEYED, serial)
    }

    /// Forgets everything, once no object is left.
    pub fn forget(&self) {
        let mut table = self.table.write();
        assert!(
            (0..table.names.len())
                .all(|object| table.at(object as u32, Revision::MAX).is_none_or(|c| c.after.is_none()))
        );
        *table = Table::default();
    }

    /// Everything up to here is in the log.
    pub fn reached(&self) -> Revision {
        *self.reached.borrow()
    }

    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.table.read().changes.len()
    }

    /// Waits until the log has come so far.
    pub async fn wait(&self, revision: Revision) {
        if self.reached() >= revision {
            return;
        }
        let mut reached = self.reached.subscribe();
        let waited = timeout(PATIENCE, reached.wait_for(|reached| *reached >= revision)).await;
        assert!(waited.is_ok(), "the store shows nothing of revision {revision}");
    }

    /// Follows a store until it is closed.
    pub async fn follow(&self, store: &dyn Store) {
        let request = WatchRequest::new(KeyRange::prefix("/registry/"), self.reached() + 1);
        let mut batches = store.watch(WatchRequest { progress: true, ..request }).await.expect("the store is open");
        while let Some(Ok(batch)) = batches.next().await {
            assert!(batch.revision >= self.reached(), "the store's log goes back");
            let mut table = self.table.write();
            for event in batch.events.iter() {
                let Some(change) = table.change(event) else { continue };
                self.check(event, &change, &table);
                let place = table.changes.len() as u32;
                table.of[change.object as usize].push(place);
                table.changes.push(change);
            }
            drop(table);
            self.reached.send_replace(batch.revision);
        }
    }

    /// A change follows the one before, and the webhooks were heard as they are to be.
    fn check(&self, event: &Event, change: &Change, table: &Table) {
        assert!(table.changes.last().is_none_or(|last| last.revision < change.revision), "{change:?} comes late");
        let Some(after) = change.after else { return assert!(change.before.is_some(), "{change:?} of nothing") };
        let created = event.kv.create_revision == event.kv.mod_revision;
        assert_eq!(created, change.before.is_none(), "{change:?}");
        if table.names[change.object as usize].namespace == 0 {
            let object = Object::from_json(event.kv.value.clone()).expect("an object");
            assert_eq!(self.fate(after.serial), Fate::Answers, "{change:?} is stored without its webhook");
            let marked = object.meta().annotations.get("seen") == Some(&after.serial.to_string());
            assert_eq!(
                self.hook.fate(IGNORED, after.serial) == Fate::Answers,
                marked,
                "{change:?}: the ignored webhook"
            );
        }
    }

    /// Reads a part of the store's history once more; it must be what was followed.
    pub async fn verify(&self, store: &dyn Store, after: Revision, to: Revision) {
        self.wait(to).await;
        let request = WatchRequest::new(KeyRange::prefix("/registry/"), after + 1);
        let mut batches = store.watch(WatchRequest { progress: true, ..request }).await.expect("the history is there");
        let (mut reached, mut found) = (after, Vec::new());
        while reached < to {
            let progress = batches.progress_request();
            let batch = tokio::select! {
                batch = batches.next() => batch.expect("the watch goes on").expect("the history can be read"),
                () = async { tokio::time::sleep(Duration::from_millis(50)).await; progress.request() } => continue,
            };
            reached = batch.revision;
            found.extend(batch.events.iter().cloned());
        }
        let mut table = self.table.write();
        let found: Vec<_> = found.iter().filter(|event| event.kv.mod_revision <= to).collect();
        let found: Vec<_> = found.into_iter().filter_map(|event| table.change(event)).collect();
        let followed: Vec<_> = table.after(after).iter().take_while(|change| change.revision <= to).cloned().collect();
        assert!(found == followed, "the history from {after} to {to} is not what the store told when it was made");
    }

    /// The number of an object that the log has.
    pub fn number(&self, name: &Name) -> u32 {
        let table = self.table.read();
        *table.numbers.get(name).unwrap_or_else(|| panic!("{name:?} was never stored"))
    }

    /// What a watch of `selection` tells behind one revision and up to another.
    pub fn events(&self, selection: &Selection, after: Revision, to: Revision) -> Vec<Told> {
        let table = self.table.read();
        let told = |change: &Change| {
            let name = &table.names[change.object as usize];
            let covers = |version| selection.covers(name, version);
            let (kind, version) = match (covers(change.before), covers(change.after)) {
                (false, false) => return None,
                (false, true) => (Kind::Added, change.after),
                (true, true) => (Kind::Modified, change.after),
                // Its last state that matched.
                (true, false) => (Kind::Deleted, change.before),
            };
            Some(Told { revision: change.revision, kind, object: change.object, version: version? })
        };
        table.after(after).iter().take_while(|change| change.revision <= to).filter_map(told).collect()
    }

    /// What a list of `selection` shows at a revision, in the order of lists.
    pub fn state(&self, selection: &Selection, revision: Revision) -> Vec<(Name, Revision, Version)> {
        let table = self.table.read();
        let mut found: Vec<_> = (0..table.names.len())
            .filter_map(|object| {
                let (name, change) = (&table.names[object], table.at(object as u32, revision)?);
                selection.covers(name, change.after).then(|| Some((name.clone(), change.revision, change.after?)))?
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Waits until the last change of an object is the one that its only writer was told of.
    pub async fn expect(&self, name: &Name, written: Option<(Revision, u64)>) {
        let mut reached = self.reached.subscribe();
        let last = || {
            let table = self.table.read();
            let change = table.numbers.get(name).and_then(|object| table.at(*object, Revision::MAX));
            change.and_then(|change| Some((change.revision, change.after?.serial)))
        };
        let shown = timeout(PATIENCE, reached.wait_for(|_| last() == written)).await;
        assert!(shown.is_ok(), "{name:?} is acknowledged to be {written:?} and stored as {:?}", last());
    }
}
