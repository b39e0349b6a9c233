//! The FlowSchemas and priority levels as they are now.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration};

use super::{
    borrowing::{Claim, share_out},
    counts::{Counts, Tally},
    demand,
    level::Level,
    matching::applies,
    queues::Queuing,
    share::{Limits, Share},
};
use crate::{
    Error,
    server::{Attributes, Changes, Follower, Reader, authz::SUPERUSERS},
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

/// No request takes more of a level with queues than this part of its share.
const MOST_PART: f64 = 0.15;

/// What becomes of a request.
pub(super) struct Classified {
    pub(super) level: Arc<Level>,
    /// It waits for nobody.
    pub(super) exempt: bool,
    pub(super) flow: u64,
    /// So many seats may one request take here.
    pub(super) most_seats: usize,
    pub(super) tally: Arc<Tally>,
    /// The uids of schema and level.
    pub(super) by: (Arc<str>, Arc<str>),
}

/// A schema, ready to match.
struct Schema {
    name: String,
    uid: Arc<str>,
    precedence: i32,
    level: String,
    /// How the requests of a schema are told apart: `ByUser`, `ByNamespace`, or not at all.
    by: String,
    rules: Vec<PolicyRulesWithSubjects>,
    tally: Arc<Tally>,
}

/// A level with its seats.
struct Running {
    uid: Arc<str>,
    share: Share,
    queuing: Queuing,
    /// Its requests wait for nobody.
    exempt: bool,
    limits: Limits,
    current: usize,
    /// Seats that it is expected to want.
    expected: f64,
    level: Arc<Level>,
}

impl Running {
    fn configure(&self) {
        // What is exempt has seats for all, but takes them from others all the same.
        self.level.configure(if self.exempt { usize::MAX } else { self.current }, self.queuing);
    }

    /// So many seats may one request take, whatever it costs.
    fn most_seats(&self) -> usize {
        if self.queuing.queues == 0 {
            return usize::MAX;
        }
        let part = (self.limits.nominal as f64 * MOST_PART).ceil() as usize;
        part.min(self.limits.nominal / self.queuing.hand.max(1)).max(1)
    }
}

pub(super) struct Config {
    total: usize,
    followers: [Follower; 2],
    /// Whether the stored objects were looked at.
    looked: bool,
    /// The one that counts first is first.
    schemas: Vec<Schema>,
    levels: HashMap<String, Running>,
    counts: Counts,
    /// Where requests are counted that no schema is about.
    exempt: Arc<Tally>,
    catch_all: Arc<Tally>,
}

impl Config {
    /// Nothing is stored yet.
    pub(super) fn new(total: usize) -> Self {
        let follow = |plural| Follower::new(GROUP, plural);
        let counts = Counts::default();
        let mut config = Self {
            total,
            followers: [follow("flowschemas"), follow("prioritylevelconfigurations")],
            looked: false,
            schemas: Vec::new(),
            levels: HashMap::new(),
            exempt: counts.tally(EXEMPT, EXEMPT),
            catch_all: counts.tally(CATCH_ALL, CATCH_ALL),
            counts,
        };
        let share = |shares| Share { shares, lendable_percent: 0.0, borrowing_percent: None };
        config.put_level(CATCH_ALL, "", share(5), Queuing::REJECT, false);
        config.put_level(EXEMPT, "", share(0), Queuing::REJECT, true);
        config.share_out();
        config
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn is_current(&self, reader: &dyn Reader) -> Result<bool, Error> {
        Ok(self.looked && self.followers[0].is_current(reader)? && self.followers[1].is_current(reader)?)
    }

    pub(super) fn follow(&mut self, reader: &dyn Reader) -> Result<(), Error> {
        let news = self.followers[0].news(reader)?;
        self.follow_schemas(&news);
        let news = self.followers[1].news(reader)?;
        let mut gone: Vec<String> = Vec::new();
        if news.all {
            let stored: HashSet<&str> = news.objects.iter().map(|(object, _)| object.meta().name.as_str()).collect();
            gone.extend(self.levels.keys().filter(|name| !stored.contains(name.as_str())).cloned());
        }
        for (object, deleted) in &news.objects {
            match object.typed::<PriorityLevelConfiguration>() {
                Ok(level) if !deleted => self.take_over(&level),
                _ => gone.push(object.meta().name.clone()),
            }
        }
        for name in gone.iter().filter(|name| !is_mandatory(name)) {
            self.levels.remove(name);
            self.counts.forget(name);
        }
        self.share_out();
        self.looked = true;
        Ok(())
    }

    fn follow_schemas(&mut self, news: &Changes) {
        let before = std::mem::take(&mut self.schemas);
        let tallies: Vec<_> = before.iter().map(|schema| Arc::clone(&schema.tally)).collect();
        let kept = before.into_iter().filter(|_| !news.all);
        let mut schemas: HashMap<String, Schema> = kept.map(|schema| (schema.name.clone(), schema)).collect();
        for (object, deleted) in &news.objects {
            schemas.remove(&object.meta().name);
            // A schema that can't be read is about nothing.
            if let (false, Ok(schema)) = (*deleted, object.typed::<FlowSchema>()) {
                schemas.extend(ready(&schema, &self.counts).map(|schema| (schema.name.clone(), schema)));
            }
        }
        self.schemas = schemas.into_values().collect();
        self.schemas.sort_by(|a, b| a.precedence.cmp(&b.precedence).then_with(|| a.name.cmp(&b.name)));
        let counted = self.schemas.iter().map(|schema| &schema.tally).chain([&self.exempt, &self.catch_all]);
        self.counts.keep(&tallies, counted);
    }

    fn take_over(&mut self, object: &PriorityLevelConfiguration) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (name, uid) = (text(&object.metadata.name), text(&object.metadata.uid));
        let Some(spec) = &object.spec else { return };
        let share = |shares: Option<i32>, default: usize, lendable: Option<i32>, borrowing: Option<i32>| Share {
            shares: shares.map_or(default, |shares| usize::try_from(shares).unwrap_or(0)),
            lendable_percent: lendable.unwrap_or(0).into(),
            borrowing_percent: borrowing.map(f64::from),
        };
        if spec.type_ == "Exempt" {
            let given = spec.exempt.clone().unwrap_or_default();
            let share = share(given.nominal_concurrency_shares, 0, given.lendable_percent, None);
            return self.put_level(&name, &uid, share, Queuing::REJECT, true);
        }
        let Some(limited) = &spec.limited else { return };
        let (lendable, borrowing) = (limited.lendable_percent, limited.borrowing_limit_percent);
        let share = share(limited.nominal_concurrency_shares, 30, lendable, borrowing);
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
        self.put_level(&name, &uid, share, queuing, false);
    }

    /// A level that is there keeps those who sit and wait in it.
    fn put_level(&mut self, name: &str, uid: &str, share: Share, queuing: Queuing, exempt: bool) {
        let known = self.levels.remove(name).filter(|known| known.exempt == exempt);
        let running = match known {
            Some(known) => Running { uid: uid.into(), share, queuing, ..known },
            // It gets its seats when they are shared out.
            None => Running {
                uid: uid.into(),
                share,
                queuing,
                exempt,
                limits: Limits::default(),
                current: 0,
                expected: 0.0,
                level: Level::new(if exempt { usize::MAX } else { 0 }, queuing),
            },
        };
        self.levels.insert(name.to_owned(), running);
    }

    /// Gives every level its part of the whole, rounded up. One whose part is another now begins anew with what it lends.
    fn share_out(&mut self) {
        let shares: usize = self.levels.values().map(|running| running.share.shares).sum();
        for (name, running) in &mut self.levels {
            let limits = Limits::of(running.share, self.total, shares);
            if running.limits != limits {
                (running.limits, running.current) = (limits, limits.first());
            }
            running.configure();
            self.counts.limits(name, limits.nominal, running.current);
        }
    }

    /// Finds by what was wanted lately who lends seats to whom.
    pub(super) fn lend(&mut self) {
        let claim = |running: &mut Running| {
            let wanted = running.level.demand();
            running.expected = demand::smoothed(running.expected, wanted);
            let Limits { nominal, least, most } = running.limits;
            // What was used of its own is its own.
            let least = wanted.most.min(nominal as f64).max(least as f64);
            Claim { least, most: least.max(most as f64), target: least.max(running.expected) }
        };
        let claims: Vec<_> = self.levels.values_mut().map(claim).collect();
        let seats: usize = self.levels.values().map(|running| running.limits.nominal).sum();
        for ((name, running), seats) in self.levels.iter_mut().zip(share_out(seats as f64, &claims)) {
            running.current = seats.round() as usize;
            if !running.exempt {
                running.level.set_seats(running.current);
            }
            self.counts.limits(name, running.limits.nominal, running.current);
        }
    }

    /// The level of a request, its flow, and the uids of schema and level.
    pub(super) fn classify(&self, asked: &Attributes) -> Option<Classified> {
        // A schema whose level is not there is about nothing.
        let mut about = self.schemas.iter().filter(|schema| applies(&schema.rules, asked));
        let found = about.find_map(|schema| Some((schema, self.levels.get(&schema.level)?)));
        let classified = |running: &Running, flow: u64, tally: &Arc<Tally>, schema: Arc<str>| Classified {
            level: Arc::clone(&running.level),
            exempt: running.exempt,
            flow,
            most_seats: running.most_seats(),
            tally: Arc::clone(tally),
            by: (schema, Arc::clone(&running.uid)),
        };
        let Some((schema, running)) = found else {
            let exempt = asked.user.in_group(SUPERUSERS);
            let (name, tally) = if exempt { (EXEMPT, &self.exempt) } else { (CATCH_ALL, &self.catch_all) };
            return Some(classified(self.levels.get(name)?, 0, tally, Arc::from("")));
        };
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        match schema.by.as_str() {
            "ByUser" => asked.user.name.hash(&mut hasher),
            "ByNamespace" => asked.namespace.hash(&mut hasher),
            _ => {}
        }
        Some(classified(running, hasher.finish(), &schema.tally, Arc::clone(&schema.uid)))
    }
}

/// Whether a FlowSchema or priority level of this name is always there.
pub(crate) fn is_mandatory(name: &str) -> bool {
    matches!(name, CATCH_ALL | EXEMPT)
}

fn ready(schema: &FlowSchema, counts: &Counts) -> Option<Schema> {
    let (spec, name) = (schema.spec.as_ref()?, schema.metadata.name.clone().unwrap_or_default());
    Some(Schema {
        tally: counts.tally(&spec.priority_level_configuration.name, &name),
        name,
        uid: schema.metadata.uid.clone().unwrap_or_default().into(),
        precedence: spec.matching_precedence.unwrap_or(1000),
        level: spec.priority_level_configuration.name.clone(),
        by: spec.distinguisher_method.as_ref().map(|method| method.type_.clone()).unwrap_or_default(),
        rules: spec.rules.clone().unwrap_or_default(),
    })
}
