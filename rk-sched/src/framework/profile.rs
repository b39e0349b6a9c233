//! Which plugins are in use where.

use std::{fmt, sync::Arc};

use super::{
    Bind, ClusterEvent, Filter, Guarded, Hint, Permit, Plugin, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter,
    PreScore, QueueSort, Reserve, Score,
};
use crate::{
    model::PodInfo,
    plugins::{self, DefaultPlugins},
};

/// One plugin and the extension points it is used at; each method names one.
pub struct Registration<P> {
    plugin: Arc<P>,
    points: Points,
}

/// A plugin's extension points.
#[derive(Default, Clone)]
pub(crate) struct Points {
    pub(crate) pre_enqueue: Option<Arc<dyn PreEnqueue>>,
    pub(crate) queue_sort: Option<Arc<dyn QueueSort>>,
    pub(crate) pre_filter: Option<Arc<dyn PreFilter>>,
    pub(crate) filter: Option<Arc<dyn Filter>>,
    pub(crate) post_filter: Option<Arc<dyn PostFilter>>,
    pub(crate) pre_score: Option<Arc<dyn PreScore>>,
    pub(crate) score: Option<(Arc<dyn Score>, i64)>,
    pub(crate) reserve: Option<Arc<dyn Reserve>>,
    pub(crate) permit: Option<Arc<dyn Permit>>,
    pub(crate) pre_bind: Option<Arc<dyn PreBind>>,
    pub(crate) bind: Option<Arc<dyn Bind>>,
    pub(crate) post_bind: Option<Arc<dyn PostBind>>,
}

impl Points {
    /// The same, called through guards.
    fn guarded(self, own: bool) -> Self {
        macro_rules! guard {
            ($plugin:expr, $bound:ident) => {
                $plugin.map(|plugin| Arc::new(Guarded::new(plugin, own)) as Arc<dyn $bound>)
            };
        }
        Self {
            pre_enqueue: guard!(self.pre_enqueue, PreEnqueue),
            queue_sort: guard!(self.queue_sort, QueueSort),
            pre_filter: guard!(self.pre_filter, PreFilter),
            filter: guard!(self.filter, Filter),
            post_filter: guard!(self.post_filter, PostFilter),
            pre_score: guard!(self.pre_score, PreScore),
            score: self.score.map(|(plugin, weight)| {
                let plugin: Arc<dyn Score> = Arc::new(Guarded::new(plugin, own));
                (plugin, weight)
            }),
            reserve: guard!(self.reserve, Reserve),
            permit: guard!(self.permit, Permit),
            pre_bind: guard!(self.pre_bind, PreBind),
            bind: guard!(self.bind, Bind),
            post_bind: guard!(self.post_bind, PostBind),
        }
    }
}

macro_rules! points {
    ($($(#[$doc:meta])* $method:ident: $bound:ident,)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $method(mut self) -> Self where P: $bound {
            self.points.$method = Some(Arc::clone(&self.plugin) as Arc<dyn $bound>);
            self
        }
    )*};
}

impl<P: Plugin> Registration<P> {
    /// A plugin, used nowhere yet.
    pub fn new(plugin: P) -> Self {
        Self { plugin: Arc::new(plugin), points: Points::default() }
    }

    points! {
        /// At PreEnqueue.
        pre_enqueue: PreEnqueue,
        /// At QueueSort, in place of the profile's plugin there.
        queue_sort: QueueSort,
        /// At PreFilter.
        pre_filter: PreFilter,
        /// At Filter.
        filter: Filter,
        /// At PostFilter.
        post_filter: PostFilter,
        /// At PreScore.
        pre_score: PreScore,
        /// At Reserve.
        reserve: Reserve,
        /// At Permit.
        permit: Permit,
        /// At PreBind.
        pre_bind: PreBind,
        /// At Bind.
        bind: Bind,
        /// At PostBind.
        post_bind: PostBind,
    }

    /// The plugin in use, guarded; whether it is one of Kubernetes' own.
    pub(crate) fn enabled(self, own: bool) -> Enabled {
        Enabled { plugin: Arc::new(Guarded::new(self.plugin, own)), points: self.points.guarded(own) }
    }

    /// At Score, with this weight (1 or more).
    #[must_use]
    pub fn score(mut self, weight: i64) -> Self
    where
        P: Score,
    {
        self.points.score = Some((Arc::clone(&self.plugin) as Arc<dyn Score>, weight.max(1)));
        self
    }
}

/// A plugin in use.
#[derive(Clone)]
pub(crate) struct Enabled {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) points: Points,
}

/// A set of plugins that schedules the pods whose `schedulerName` is the profile's.
#[derive(Clone)]
pub struct Profile {
    scheduler_name: String,
    queue_sort: Arc<dyn QueueSort>,
    enabled: Vec<Enabled>,
    /// Whether plugins that are added now are Kubernetes' own.
    own: bool,
    pub(crate) percentage_of_nodes_to_score: Option<u8>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugins: Vec<_> = self.enabled.iter().map(|enabled| enabled.plugin.name()).collect();
        f.debug_struct("Profile").field("scheduler_name", &self.scheduler_name).field("plugins", &plugins).finish()
    }
}

impl Profile {
    /// A profile that only sorts (by priority, then by age) and binds.
    pub fn empty(scheduler_name: &str) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            queue_sort: Arc::new(plugins::PrioritySort),
            enabled: Vec::new(),
            own: false,
            percentage_of_nodes_to_score: None,
        }
        .own(|profile| profile.with(Registration::new(plugins::DefaultBinder).bind()))
    }

    /// A profile of plugins that were put together elsewhere. A plugin may be there several times, at different points.
    pub(crate) fn assembled(scheduler_name: &str, queue_sort: Arc<dyn QueueSort>, enabled: Vec<Enabled>) -> Self {
        let scheduler_name = scheduler_name.to_owned();
        Self { scheduler_name, queue_sort, enabled, own: false, percentage_of_nodes_to_score: None }
    }

    /// Kubernetes' default plugins with their default weights.
    pub fn kubernetes(scheduler_name: &str) -> Self {
        Self::configured(scheduler_name, DefaultPlugins::default())
    }

    /// Kubernetes' default plugins with their default weights and these arguments.
    pub fn configured(scheduler_name: &str, plugins: DefaultPlugins) -> Self {
        Self::empty(scheduler_name).own(|profile| plugins::kubernetes(profile, plugins))
    }

    /// Adds plugins that are Kubernetes' own.
    fn own(mut self, add: impl FnOnce(Self) -> Self) -> Self {
        self.own = true;
        let mut added = add(self);
        added.own = false;
        added
    }

    /// Adds a plugin behind those there are; one of the same name is replaced in its place.
    #[must_use]
    pub fn with<P: Plugin>(mut self, registration: Registration<P>) -> Self {
        let enabled = registration.enabled(self.own);
        if let Some(plugin) = &enabled.points.queue_sort {
            self.queue_sort = Arc::clone(plugin);
        }
        match self.enabled.iter_mut().find(|other| other.plugin.name() == enabled.plugin.name()) {
            Some(other) => *other = enabled,
            None => self.enabled.push(enabled),
        }
        self
    }

    /// Places the pods of gangs together, all or none: adds [`GangScheduling`](plugins::GangScheduling).
    #[must_use]
    pub fn with_gangs(self) -> Self {
        self.with(Registration::new(plugins::GangScheduling).pre_enqueue())
    }

    /// Leaves a plugin out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.enabled.retain(|enabled| enabled.plugin.name() != name);
        self
    }

    /// Whether a plugin is in use.
    pub fn has(&self, name: &str) -> bool {
        self.enabled.iter().any(|enabled| enabled.plugin.name() == name)
    }

    /// Gives a plugin that scores another weight (1 or more); `None` if there is no such plugin.
    #[must_use]
    pub fn weighted(mut self, name: &str, weight: i64) -> Option<Self> {
        let enabled = self.enabled.iter_mut().find(|enabled| enabled.plugin.name() == name)?;
        enabled.points.score.as_mut()?.1 = weight.max(1);
        Some(self)
    }

    /// Sorts the queue by another plugin. All profiles of a scheduler share the first one's.
    #[must_use]
    pub fn sorted_by(mut self, plugin: impl QueueSort) -> Self {
        self.queue_sort = Arc::new(Guarded::new(Arc::new(plugin) as Arc<dyn QueueSort>, false));
        self
    }

    /// How many percent of the nodes must fit before no more are tried; see
    /// [`SchedulerConfig::percentage_of_nodes_to_score`](crate::SchedulerConfig::percentage_of_nodes_to_score), which this overrides.
    #[must_use]
    pub fn percentage_of_nodes_to_score(mut self, percent: u8) -> Self {
        self.percentage_of_nodes_to_score = Some(percent);
        self
    }

    /// The `schedulerName` it answers to.
    pub fn scheduler_name(&self) -> &str {
        &self.scheduler_name
    }

    /// The plugin that sorts the queue.
    pub fn queue_sort(&self) -> &Arc<dyn QueueSort> {
        &self.queue_sort
    }

    pub(crate) fn enabled(&self) -> &[Enabled] {
        &self.enabled
    }

    /// Whether an event may change the mind of one of the named plugins. One that is not known may always.
    pub(crate) fn hint(
        &self,
        plugins: impl IntoIterator<Item = &'static str>,
        pod: &PodInfo,
        event: &ClusterEvent,
    ) -> bool {
        plugins.into_iter().any(|name| {
            let known = self.enabled.iter().find(|enabled| enabled.plugin.name() == name);
            known.is_none_or(|enabled| enabled.plugin.hint(pod, event) == Hint::Queue)
        })
    }
}
