//! The FlowSchemas and priority levels as they are now.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration};

use super::{
    level::{Level, Queuing},
    matching::applies,
};
use crate::{
    Error,
    server::{Attributes, Follower, Reader, authz::SUPERUSERS},
};

pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The level and the schema of requests that no other is about; both are there even if nobody has stored them.
const CATCH_ALL: &str = "catch-all";
/// The level and the schema of `system:masters`.
pub(crate) const EXEMPT: &str = "exempt";

/// No level has more queues, and no flow more of them to choose from, whatever its object says: a queue takes memory, and
/// dealing hands takes time, before anybody waits.
const MOST_QUEUES: usize = 1 << 16;
const MOST_HAND: usize = 64;

/// The level of a request (`None` if it is exempt), its flow there, and the uids of schema and level.
pub(super) type Classified = (Option<Arc<Level>>, u64, (Arc<str>, Arc<str>));

/// A schema, ready to match.
struct Schema {
    name: String,
    uid: Arc<str>,
    precedence: i32,
    level: String,
    /// How the requests of a schema are told apart: `ByUser`, `ByNamespace`, or not at all.
    by: String,
    rules: Vec<PolicyRulesWithSubjects>,
}

/// A level with its seats; `None` for one whose requests need none.
struct Running {
    uid: Arc<str>,
    shares: usize,
    queuing: Queuing,
    level: Option<Arc<Level>>,
}

pub(super) struct Config {
    followers: [Follower; 2],
    /// The one that counts first is first.
    schemas: Vec<Schema>,
    levels: HashMap<String, Running>,
}

impl Default for Config {
    fn default() -> Self {
        let follow = |plural| Follower::new(GROUP, plural);
        let followers = [follow("flowschemas"), follow("prioritylevelconfigurations")];
        let mut config = Self { followers, schemas: Vec::new(), levels: HashMap::new() };
        config.put_level(CATCH_ALL, "", 5, Queuing::REJECT, false);
        config.put_level(EXEMPT, "", 0, Queuing::REJECT, true);
        config
    }
}

impl Config {
    pub(super) fn is_current(&self, reader: &dyn Reader) -> Result<bool, Error> {
        // The total is not known before the first look.
        let looked = self.levels.values().any(|running| running.level.is_some());
        Ok(looked && self.followers[0].is_current(reader)? && self.followers[1].is_current(reader)?)
    }

    pub(super) fn follow(&mut self, reader: &dyn Reader, total: usize) -> Result<(), Error> {
        let news = self.followers[0].news(reader)?;
        if news.all {
            self.schemas.clear();
        }
        for (object, deleted) in &news.objects {
            self.schemas.retain(|schema| schema.name != object.meta().name);
            // A schema that can't be read is about nothing.
            if let (false, Ok(schema)) = (*deleted, object.typed::<FlowSchema>()) {
                self.schemas.extend(ready(&schema));
            }
        }
        self.schemas.sort_by(|a, b| a.precedence.cmp(&b.precedence).then_with(|| a.name.cmp(&b.name)));

        let news = self.followers[1].news(reader)?;
        if news.all {
            let stored: Vec<&str> = news.objects.iter().map(|(object, _)| object.meta().name.as_str()).collect();
            self.levels.retain(|name, _| is_mandatory(name) || stored.contains(&name.as_str()));
        }
        for (object, deleted) in &news.objects {
            let name = &object.meta().name;
            match object.typed::<PriorityLevelConfiguration>() {
                Ok(level) if !deleted => self.take_over(&level),
                _ if is_mandatory(name) => {}
                _ => _ = self.levels.remove(name),
            }
        }
        self.share_out(total);
        Ok(())
    }

    fn take_over(&mut self, object: &PriorityLevelConfiguration) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (name, uid) = (text(&object.metadata.name), text(&object.metadata.uid));
        let Some(spec) = &object.spec else { return };
        if spec.type_ == "Exempt" {
            return self.put_level(&name, &uid, 0, Queuing::REJECT, true);
        }
        let Some(limited) = &spec.limited else { return };
        let response = limited.limit_response.as_ref().filter(|response| response.type_ == "Queue");
        let queuing = response.map_or(Queuing::REJECT, |response| {
            let given = response.queuing.as_ref();
            let or =
                |number: Option<i32>, default: usize| number.and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
            Queuing {
                queues: or(given.and_then(|given| given.queues), 64).min(MOST_QUEUES),
                hand: or(given.and_then(|given| given.hand_size), 8).min(MOST_HAND),
                length: or(given.and_then(|given| given.queue_length_limit), 50),
            }
        });
        let shares = limited.nominal_concurrency_shares.unwrap_or(30);
        self.put_level(&name, &uid, usize::try_from(shares).unwrap_or(0), queuing, false);
    }

    /// A level that is there keeps those who sit and wait in it.
    fn put_level(&mut self, name: &str, uid: &str, shares: usize, queuing: Queuing, exempt: bool) {
        let level = self.levels.remove(name).and_then(|known| known.level).filter(|_| !exempt);
        // Without a level yet, one that is not exempt gets its seats when they are shared out.
        let running = Running { uid: uid.into(), shares: if exempt { 0 } else { shares.max(1) }, queuing, level };
        self.levels.insert(name.to_owned(), running);
    }

    /// Gives every level its seats: its part of the whole, rounded up.
    fn share_out(&mut self, total: usize) {
        let sum: usize = self.levels.values().map(|running| running.shares).sum();
        for running in self.levels.values_mut().filter(|running| running.shares > 0) {
            let seats = (total * running.shares).div_ceil(sum.max(1));
            match &running.level {
                Some(level) => level.configure(seats, running.queuing),
                None => running.level = Some(Level::new(seats, running.queuing)),
            }
        }
    }

    /// The level of a request, its flow, and the uids of schema and level.
    pub(super) fn classify(&self, asked: &Attributes) -> Classified {
        // A schema whose level is not there is about nothing.
        let mut about = self.schemas.iter().filter(|schema| applies(&schema.rules, asked));
        let found = about.find_map(|schema| Some((schema, self.levels.get(&schema.level)?)));
        let Some((schema, running)) = found else {
            let name = if asked.user.in_group(SUPERUSERS) { EXEMPT } else { CATCH_ALL };
            let level = self.levels.get(name);
            let uid = level.map_or_else(|| Arc::from(""), |running| Arc::clone(&running.uid));
            return (level.and_then(|running| running.level.clone()), 0, (Arc::from(""), uid));
        };
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        match schema.by.as_str() {
            "ByUser" => asked.user.name.hash(&mut hasher),
            "ByNamespace" => asked.namespace.hash(&mut hasher),
            _ => {}
        }
        (running.level.clone(), hasher.finish(), (Arc::clone(&schema.uid), Arc::clone(&running.uid)))
    }
}

/// Whether a FlowSchema or priority level of this name is always there.
pub(crate) fn is_mandatory(name: &str) -> bool {
    matches!(name, CATCH_ALL | EXEMPT)
}

fn ready(schema: &FlowSchema) -> Option<Schema> {
    let spec = schema.spec.as_ref()?;
    Some(Schema {
        name: schema.metadata.name.clone().unwrap_or_default(),
        uid: schema.metadata.uid.clone().unwrap_or_default().into(),
        precedence: spec.matching_precedence.unwrap_or(1000),
        level: spec.priority_level_configuration.name.clone(),
        by: spec.distinguisher_method.as_ref().map(|method| method.type_.clone()).unwrap_or_default(),
        rules: spec.rules.clone().unwrap_or_default(),
    })
}
