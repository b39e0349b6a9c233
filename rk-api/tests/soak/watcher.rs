//! Those who watch: each for a while, over as many lives of the control plane as come.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use rand::{RngExt, rngs::StdRng};
use rk_api::{Error, EventStream, ListOptions, Object, WatchEvent, WatchOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    load::{Counts, count, list, resource, select},
    log::{Kind, Name, PATIENCE, Selection, Told, Version},
    plane::{World, is_local},
};

/// Events after which they are compared with the store's log.
const COMPARED: usize = 256;

/// One that watches a selection.
pub struct Watcher {
    world: Arc<World>,
    counts: Arc<Counts>,
    number: usize,
    selection: Selection,
    /// Seconds after which the server is asked to end each watch; 0 for never.
    seconds: u64,
    /// When the last watch was asked for.
    begun: Instant,
    /// What was told behind here is not yet compared.
    compared: u64,
    told: Vec<Told>,
}

/// Why it does not watch on.
enum Left {
    /// It has seen enough.
    Enough,
    /// It has to list again.
    Expired,
}

/// Watches, one selection after the other, until it is over.
pub async fn keep_watching(
    world: Arc<World>,
    counts: Arc<Counts>,
    (number, longest): (usize, Duration),
    mut choices: StdRng,
) {
    while !world.over.is_cancelled() {
        let mut selection = select(&mut choices);
        if choices.random_bool(0.1) {
            (selection.namespace, selection.group) = (Some(1), None);
            selection.name = Some(format!("writer-{}-{}", choices.random_range(0..4), 1 + 4 * selection.collection));
        }
        let seconds = if choices.random_bool(0.2) { choices.random_range(1..4) } else { 0 };
        let streams = choices.random_bool(0.3);
        let (world, counts) = (world.clone(), counts.clone());
        let mut watcher =
            Watcher { world, counts, number, selection, seconds, begun: Instant::now(), compared: 0, told: Vec::new() };
        let until = Instant::now() + longest.mul_f64(choices.random_range(0.05..1.0));
        while let Left::Expired = watcher.live(streams, until).await {
            count(&watcher.counts.expired);
        }
    }
}

impl Watcher {
    fn options(&self, resource_version: String) -> WatchOptions {
        WatchOptions {
            labels: self.selection.labels(),
            fields: self.selection.fields(),
            resource_version,
            bookmarks: true,
            timeout_seconds: self.seconds,
            ..WatchOptions::default()
        }
    }

    /// Lists, by a streaming list or a plain one, and watches from there.
    async fn live(&mut self, streams: bool, until: Instant) -> Left {
        let (mut events, mut life) = loop {
            let plane = self.world.plane().await;
            let client = plane.client(self.number);
            let begun = if streams {
                count(&self.counts.watches);
                let options =
                    WatchOptions { send_initial_events: Some(true), timeout_seconds: 0, ..self.options(String::new()) };
                match client.watch(&resource(self.selection.collection), self.selection.namespace(), options).await {
                    Ok(events) => self.initial(events).await,
                    Err(error) => Err(error),
                }
            } else {
                let listed = list(&self.world, client, &self.selection, ListOptions::default()).await;
                listed.map(|version| (version, None))
            };
            match begun {
                Ok((version, events)) => {
                    self.compared = version;
                    break (events, plane.life);
                }
                Err(error) => self.broken(plane.life, &error),
            }
        };
        loop {
            if let Some(events) = events.take()
                && let Some(left) = self.follow(events, life, until).await
            {
                return left;
            }
            let plane = self.world.plane().await;
            life = plane.life;
            count(&self.counts.watches);
            self.begun = Instant::now();
            let (from, namespace) = (self.options(self.last().to_string()), self.selection.namespace());
            match plane.client(self.number).watch(&resource(self.selection.collection), namespace, from).await {
                Ok(begun) => events = Some(begun),
                Err(error) if self.expired(&error) => return Left::Expired,
                Err(error) => self.broken(life, &error),
            }
        }
    }

    /// The initial events of a streaming list, up to their bookmark.
    async fn initial(&self, mut events: EventStream) -> Result<(u64, Option<EventStream>), Error> {
        let mut shown = Vec::new();
        loop {
            let next = timeout(PATIENCE, events.next()).await.expect("the initial events come");
            match next.unwrap_or_else(|| Err(Error::Transport("the watch ended".to_owned())))? {
                WatchEvent::Added(object) => {
                    let name = Name::of(self.selection.collection, &object);
                    shown.extend(name.map(|name| (name, object.revision(), Version::of(&object))));
                }
                WatchEvent::Bookmark { resource_version, initial_end: true } => {
                    let version = resource_version.parse().expect("a revision");
                    self.world.log.wait(version).await;
                    assert_eq!(shown, self.world.log.state(&self.selection, version), "{:?}", self.selection);
                    return Ok((version, Some(events)));
                }
                other => panic!("{other:?} among the initial events"),
            }
        }
    }

    /// Follows one watch; `None` where it has to begin anew from where it was.
    async fn follow(&mut self, mut events: EventStream, life: u64, until: Instant) -> Option<Left> {
        let world = self.world.clone();
        let mut target = None;
        loop {
            if let Some(target) = target
                && (self.last() >= target || self.told == world.log.events(&self.selection, self.compared, target))
            {
                self.compare(self.last().max(target)).await;
                return Some(Left::Enough);
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(&event).await,
                    Some(Err(error)) if self.expired(&error) => {
                        self.compare(self.last()).await;
                        return Some(Left::Expired);
                    }
                    Some(Err(error)) => {
                        self.broken(life, &error);
                        break;
                    }
                    None => {
                        let asked = self.seconds > 0 && self.begun.elapsed() >= Duration::from_secs(self.seconds);
                        if !asked {
                            self.broken(life, &Error::Transport("the watch ended".to_owned()));
                        }
                        break;
                    }
                },
                () = sleep_until(until), if target.is_none() => target = Some(world.log.reached()),
                () = world.over.cancelled(), if target.is_none() => target = Some(world.log.reached()),
                () = sleep(PATIENCE), if target.is_some() => {
                    self.compare(target?).await;
                    panic!("a watch tells less than there is");
                }
                () = world.end_of(life), if is_local(self.number) => break,
            }
        }
        self.compare(self.last()).await;
        None
    }

    /// Where it is.
    fn last(&self) -> u64 {
        self.told.last().map_or(self.compared, |told| told.revision)
    }

    async fn take(&mut self, event: &WatchEvent) {
        let told = |kind, object: &Object| {
            let name = Name::of(self.selection.collection, object)?;
            Some((kind, name, object.revision(), Version::of(object)))
        };
        let told = match event {
            WatchEvent::Added(object) => told(Kind::Added, object),
            WatchEvent::Modified(object) => told(Kind::Modified, object),
            WatchEvent::Deleted(object) => told(Kind::Deleted, object),
            WatchEvent::Bookmark { resource_version, .. } => {
                return self.compare(resource_version.parse().expect("a revision")).await;
            }
        };
        let Some((kind, name, revision, version)) = told else { return };
        self.world.log.wait(revision).await;
        self.told.push(Told { revision, kind, object: self.world.log.number(&name), version });
        if self.told.len() >= COMPARED {
            self.compare(revision).await;
        }
    }

    /// Everything up to a revision must have been told, once and in order.
    async fn compare(&mut self, to: u64) {
        self.world.log.wait(to).await;
        let logged = self.world.log.events(&self.selection, self.compared, to);
        let (told, selection, compared) = (&self.told, &self.selection, self.compared);
        assert!(
            *told == logged,
            "a watch of {selection:?} from {compared} to {to} told\n{told:?}\nand the store's log has\n{logged:?}"
        );
        self.counts.events.fetch_add(told.len() as u64, Ordering::Relaxed);
        self.told.clear();
        self.compared = to;
    }

    /// Whether it has to list again, which it may have to where it comes from what is compacted, or is slow where few changes are kept.
    fn expired(&self, error: &Error) -> bool {
        let compacted = self.last() < self.world.compacted.load(Ordering::SeqCst);
        let slow = self.selection.collection == 1 && error.to_string().contains("too slow");
        assert!(!error.is_expired() || compacted || slow, "{:?} from {}: {error}", self.selection, self.last());
        error.is_expired()
    }

    fn broken(&self, life: u64, error: &Error) {
        self.world.excuse(life, &format!("{:?} from {}", self.selection, self.last()), error);
        count(&self.counts.broken);
    }
}
