//! Recording `Event` objects, as client-go's recorder does: never in the way of the caller, repeated events counted
//! up in one object, similar ones aggregated, floods dropped.
//!
//! [`EventRecorder::record`] hands the event to a background task by a bounded channel. The task correlates it
//! (`correlate`), then creates an `Event` or patches the count of one that it made before.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use super::{Api, Client, Patch};
use crate::{Error, Object, ResourceType, now};

/// Whether an event tells of the normal course or of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The normal course.
    Normal,
    /// Something that a person may have to look at.
    Warning,
}

impl EventType {
    /// The word in `Event.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// A reference to an object, as events hold it.
pub fn object_reference<K: ResourceType>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        resource_version: meta.resource_version.clone(),
        uid: meta.uid.clone(),
        field_path: None,
    }
}

impl Object {
    /// A reference to the object, as events hold it.
    pub fn reference(&self) -> ObjectReference {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let meta = self.meta();
        ObjectReference {
            api_version: some(self.api_version()),
            kind: some(self.kind()),
            name: some(&meta.name),
            namespace: some(&meta.namespace),
            resource_version: some(&meta.resource_version),
            uid: some(&meta.uid),
            field_path: None,
        }
    }
}

/// Records events of one component. Clones share one background task, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// Events that wait for the API; more are dropped, as client-go's broadcaster does.
const QUEUE: usize = 1000;
/// No queue is longer than this, which no component fills.
const MOST: usize = 1 << 20;

impl EventRecorder {
    /// A recorder for a component (`deployment-controller`, `kubelet`) on a host (empty if that says nothing).
    /// Must be called in a tokio runtime.
    pub fn new(client: Arc<dyn Client>, component: &str, host: &str) -> Self {
        Self::with_queue(client, component, host, QUEUE)
    }

    /// A recorder for a component that has much to tell at once: so many events (1 at least) may wait for the API before more are dropped.
    /// Must be called in a tokio runtime.
    pub fn with_queue(client: Arc<dyn Client>, component: &str, host: &str, waiting: usize) -> Self {
        let (queue, notes) = mpsc::channel(waiting.clamp(1, MOST));
        let source =
            EventSource { component: Some(component.to_owned()), host: (!host.is_empty()).then(|| host.to_owned()) };
        tokio::spawn(Writer { client, source, correlator: Correlator::default(), last_name: 0 }.run(notes));
        Self { queue, dropped: Arc::default() }
    }

    /// How many events were dropped so far because too many waited. Those of a flood about one object, which client-go's limits leave out, are not
    /// counted.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records that something happened to an object. `reason` is one CamelCase word for programs, `message` is for people.
    /// It returns at once; an event that can't be queued is dropped with a log line.
    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let note = Note { about: about.clone(), kind, reason: reason.to_owned(), message: message.into(), at: now() };
        if let Err(error) = self.queue.try_send(note) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(%error, reason, object = about.name.as_deref().unwrap_or_default(), dropped, "event dropped");
        }
    }

    /// Records the normal course.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, message);
    }

    /// Records a failure.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, message);
    }
}

/// One thing that happened.
struct Note {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// The object an event is about, and in which words: events equal in this are one, counted.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    kind: String,
    namespace: String,
    name: String,
    field: String,
    event: EventType,
    reason: String,
    message: String,
}

impl Identity {
    fn of(note: &Note) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            uid: text(&note.about.uid),
            kind: text(&note.about.kind),
            namespace: text(&note.about.namespace),
            name: text(&note.about.name),
            field: text(&note.about.field_path),
            event: note.kind,
            reason: note.reason.clone(),
            message: note.message.clone(),
        }
    }

    fn without_message(&self) -> Self {
        Self { message: String::new(), ..self.clone() }
    }

    fn object(&self) -> Self {
        Self { message: String::new(), reason: String::new(), event: EventType::Normal, ..self.clone() }
    }
}

/// client-go's limits (`events_cache.go`): objects remembered; burst and refill of events per object; different messages
/// of one reason within the interval before they become one.
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
const SIMILAR: usize = 10;
const SIMILAR_INTERVAL: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Correlator {
    budgets: HashMap<Identity, (f64, Instant)>,
    messages: HashMap<Identity, (Vec<String>, Instant)>,
    written: HashMap<Identity, Written>,
}

struct Written {
    name: String,
    count: i32,
    at: Instant,
}

/// What to do with a note.
enum Fate {
    Drop,
    Write(Identity, String),
}

impl Correlator {
    fn correlate(&mut self, note: &Note, at: Instant) -> Fate {
        let identity = Identity::of(note);
        forget(&mut self.budgets, |budget| budget.1);
        let (tokens, since) = self.budgets.entry(identity.object()).or_insert((BURST, at));
        *tokens = (*tokens + at.duration_since(*since).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *since = at;
        if *tokens < 1.0 {
            return Fate::Drop;
        }
        *tokens -= 1.0;

        forget(&mut self.messages, |similar| similar.1);
        let (messages, since) = self.messages.entry(identity.without_message()).or_insert_with(|| (Vec::new(), at));
        if at.duration_since(*since) > SIMILAR_INTERVAL {
            messages.clear();
        }
        *since = at;
        if !messages.contains(&note.message) {
            messages.push(note.message.clone());
        }
        if messages.len() < SIMILAR {
            return Fate::Write(identity, note.message.clone());
        }
        messages.truncate(SIMILAR);
        Fate::Write(identity.without_message(), format!("(combined from similar events): {}", note.message))
    }
}

/// Drops the older half where a map has grown to its limit.
fn forget<V>(map: &mut HashMap<Identity, V>, at: impl Fn(&V) -> Instant) {
    if map.len() >= REMEMBERED {
        let mut times: Vec<Instant> = map.values().map(&at).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        map.retain(|_, value| at(value) > middle);
    }
}

struct Writer {
    client: Arc<dyn Client>,
    source: EventSource,
    correlator: Correlator,
    last_name: i128,
}

/// Tries of one event while the server can't be reached, and the wait between them (client-go's `maxTriesPerEvent`).
const TRIES: u32 = 12;
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            let Fate::Write(identity, message) = self.correlator.correlate(&note, Instant::now()) else { continue };
            if let Err(error) = self.write_patiently(&note, identity, &message).await {
                let object = note.about.name.as_deref().unwrap_or_default();
                tracing::warn!(%error, reason = note.reason, object, "event not recorded");
            }
        }
    }

    async fn write_patiently(&mut self, note: &Note, identity: Identity, message: &str) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.write(note, &identity, message).await {
                Err(Error::Transport(_)) if tries < TRIES => tokio::time::sleep(RETRY_AFTER).await,
                // A namespace that is going takes no new objects, and that needs no telling.
                Err(error) if error.is_forbidden() && error.to_string().contains("because it is being terminated") => {
                    return Ok(());
                }
                other => return other,
            }
            tries += 1;
        }
    }

    async fn write(&mut self, note: &Note, identity: &Identity, message: &str) -> Result<(), Error> {
        let namespace = note.about.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or("default");
        let api = Api::<Event>::namespaced(Arc::clone(&self.client), namespace);
        if let Some(written) = self.correlator.written.get_mut(identity) {
            let count = written.count.saturating_add(1);
            let patch = json!({"count": count, "message": message, "lastTimestamp": Time(note.at)});
            match api.patch(&written.name, Patch::merge(patch)).await {
                Ok(_) => {
                    (written.count, written.at) = (count, Instant::now());
                    return Ok(());
                }
                // It was deleted, or its time to live is over: begin anew.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(note, namespace, message);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&event).await?;
        forget(&mut self.correlator.written, |written| written.at);
        self.correlator.written.insert(identity.clone(), Written { name, count: 1, at: Instant::now() });
        Ok(())
    }

    fn event(&mut self, note: &Note, namespace: &str, message: &str) -> Event {
        // Named by the time as client-go does; made unique where the clock stands still.
        self.last_name = note.at.as_nanosecond().max(self.last_name + 1);
        let name = format!("{}.{:x}", note.about.name.as_deref().unwrap_or_default(), self.last_name);
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
            involved_object: note.about.clone(),
            reason: Some(note.reason.clone()),
            message: Some(message.to_owned()),
            type_: Some(note.kind.as_str().to_owned()),
            first_timestamp: Some(Time(note.at)),
            last_timestamp: Some(Time(note.at)),
            count: Some(1),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;
    use crate::{DeleteOptions, EventStream, List, ListOptions, Request, Resource, Verb, WatchOptions, status};

    fn note(name: &str, message: &str) -> Note {
        let about = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        Note { about, kind: EventType::Warning, reason: "BackOff".into(), message: message.into(), at: now() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_dropped_and_refills_slowly() {
        let mut correlator = Correlator::default();
        let written = |correlator: &mut Correlator, name| {
            (0..40)
                .filter(|_| matches!(correlator.correlate(&note(name, "m"), Instant::now()), Fate::Write(..)))
                .count()
        };
        assert_eq!(written(&mut correlator, "a"), 25);
        assert_eq!(written(&mut correlator, "b"), 25, "each object has its own budget");
        tokio::time::advance(2 * REFILL).await;
        assert_eq!(written(&mut correlator, "a"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_different_messages_become_one() {
        let mut correlator = Correlator::default();
        let mut combined = 0;
        for i in 0..12 {
            if let Fate::Write(identity, message) = correlator.correlate(&note("a", &i.to_string()), Instant::now()) {
                assert_eq!(identity.message.is_empty(), message.starts_with("(combined from similar events): "));
                combined += usize::from(identity.message.is_empty());
            }
        }
        assert_eq!(combined, 3, "the tenth different message and those after it");
    }

    /// A server of events alone.
    #[derive(Default)]
    struct Events(Mutex<Vec<Value>>);

    #[async_trait]
    impl Client for Events {
        async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
            let mut events = self.0.lock();
            match request.verb {
                Verb::Create(body, _) => {
                    events.push(body.clone());
                    Object::from_value(&body).map(Arc::new)
                }
                Verb::Patch(patch, _) => {
                    let found = events.iter_mut().find(|event| event["metadata"]["name"] == request.name);
                    let Some(event) = found else {
                        return Err(status::not_found(&request.resource, &request.name).into());
                    };
                    json_patch::merge(event, &patch.body);
                    Object::from_value(event).map(Arc::new)
                }
                _ => Err(status::method_not_allowed().into()),
            }
        }
        async fn list(&self, _: &Resource, _: &str, _: ListOptions) -> Result<List, Error> {
            Err(status::method_not_allowed().into())
        }
        async fn watch(&self, _: &Resource, _: &str, _: WatchOptions) -> Result<EventStream, Error> {
            Err(status::method_not_allowed().into())
        }
        async fn delete_collection(
            &self,
            _: &Resource,
            _: &str,
            _: DeleteOptions,
            _: ListOptions,
        ) -> Result<(), Error> {
            Err(status::method_not_allowed().into())
        }
    }

    async fn until(events: &Events, done: impl Fn(&[Value]) -> bool) {
        while !done(&events.0.lock()) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_the_queue_is_counted() {
        let events = Arc::new(Events::default());
        let recorder = EventRecorder::with_queue(events.clone(), "scheduler", "", 10);
        let about =
            |number: usize| ObjectReference { name: Some(format!("pod-{number}")), ..ObjectReference::default() };
        // Nothing is written before this task waits.
        (0..25).for_each(|number| recorder.normal(&about(number), "Scheduled", "assigned"));
        assert_eq!(recorder.clone().dropped(), 15);
        until(&events, |events| events.len() == 10).await;
        recorder.normal(&about(25), "Scheduled", "assigned");
        until(&events, |events| events.len() == 11).await;
        assert_eq!(recorder.dropped(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_event_is_counted_in_one_object() {
        let events = Arc::new(Events::default());
        let recorder = EventRecorder::new(events.clone(), "kubelet", "node-1");
        let pod = Object::from_json(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","uid":"u1"}}"#,
        )
        .unwrap()
        .reference();
        for _ in 0..3 {
            recorder.warning(&pod, "BackOff", "Back-off restarting failed container");
        }
        recorder.normal(&pod, "Pulled", "Image is there");
        until(&events, |events| events.len() == 2).await;
        {
            let events = events.0.lock();
            assert_eq!(events[0]["count"], 3);
            assert_eq!(events[0]["source"], json!({"component": "kubelet", "host": "node-1"}));
            assert_eq!(events[0]["involvedObject"]["uid"], "u1");
            assert_eq!(events[0]["metadata"]["namespace"], "shop");
            assert_eq!(events[1]["type"], "Normal");
        }
        events.0.lock().clear();
        recorder.warning(&pod, "BackOff", "Back-off restarting failed container");
        until(&events, |events| events.len() == 1).await;
        assert_eq!(events.0.lock()[0]["count"], 1, "an event whose time is over begins anew");
    }
}
