//! From a profile of a configuration to one of the framework.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    FieldError, KubeSchedulerConfiguration, KubeSchedulerProfile, Registry, own_args,
    sets::{self, Use},
};
use crate::{
    framework::{Enabled, Point, Points, Profile, Registration},
    plugins::{DefaultPlugins, GangScheduling},
};

/// Plugins that kube-scheduler had and has no more (`invalidPluginsByVersion`).
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Makes a profile; what is wrong with it is told.
pub(super) fn build(
    configuration: &KubeSchedulerConfiguration,
    profile: &KubeSchedulerProfile,
    path: &str,
    registry: &Registry,
    errors: &mut Vec<FieldError>,
) -> Option<Profile> {
    let before = errors.len();
    let mut own = DefaultPlugins::default();
    let plain = Profile::kubernetes("");
    let is_own = |name: &str| {
        plain.queue_sort().name() == name || plain.enabled().iter().any(|enabled| enabled.plugin.name() == name)
    };
    for (index, config) in profile.plugin_config.iter().enumerate() {
        let path = format!("{path}.pluginConfig[{index}]");
        if registry.has(&config.name) {
            continue;
        }
        if is_own(&config.name) {
            own_args::configure(&config.name, &config.args, &format!("{path}.args"), &mut own, errors);
        } else if REMOVED.contains(&config.name.as_str()) {
            errors.push(unknown(&config.name, path));
        } else if config.name != GangScheduling::NAME {
            // kube-scheduler takes it for the arguments of a plugin that another program has.
            tracing::warn!(plugin = config.name, field = path, "arguments of an unknown plugin are left out");
        }
    }
    let managed = configuration.extenders.iter().flat_map(|extender| &extender.managed_resources);
    own.fit
        .ignored
        .extend(managed.filter(|resource| resource.ignored_by_scheduler).map(|resource| resource.name.clone()));

    let own = Profile::configured("", own);
    let mut known: BTreeMap<String, Enabled> = BTreeMap::new();
    let sort = own.queue_sort();
    let points = Points { queue_sort: Some(sort.clone()), ..Points::default() };
    known.insert(sort.name().to_owned(), Enabled { plugin: sort.clone(), points });
    known.extend(own.enabled().iter().map(|enabled| (enabled.plugin.name().to_owned(), enabled.clone())));
    // Off by default, as in Kubernetes.
    known.insert(GangScheduling::NAME.to_owned(), Registration::new(GangScheduling).pre_enqueue().enabled(true));
    let weight = |enabled: &Enabled| enabled.points.score.as_ref().map_or(1, |(_, weight)| *weight);
    let defaults = own.enabled().iter().map(|enabled| (enabled.plugin.name(), weight(enabled)));
    let defaults: Vec<(&str, i64)> = std::iter::once((sort.name(), 1)).chain(defaults).collect();

    let plugins = &profile.plugins;
    let multi_point = sets::multi_point(&defaults, &plugins.multi_point, &format!("{path}.plugins.multiPoint"));
    let multi_point = once_each(multi_point, errors);
    let at = |point| {
        let (set, name) = sets::set_of(plugins, point);
        (set, format!("{path}.plugins.{name}"))
    };
    let named = Point::ALL.iter().flat_map(|point| {
        let (set, path) = at(*point);
        sets::uses(set, &path)
    });
    let mut tried = BTreeSet::new();
    for plugin in multi_point.iter().cloned().chain(named) {
        if tried.insert(plugin.name.clone()) {
            make(&plugin, profile, path, registry, &mut known, errors);
        }
    }

    let order: BTreeMap<Point, Vec<Use>> = Point::ALL
        .iter()
        .map(|point| {
            let (set, path) = at(*point);
            (*point, sets::at_point(*point, set, &path, &multi_point, &known, errors))
        })
        .collect();
    let used = |point: Point| order.get(&point).map(Vec::as_slice).unwrap_or_default();
    let name = profile.scheduler_name.as_deref().unwrap_or_default();
    if used(Point::Bind).is_empty() {
        let reason = format!("at least one bind plugin is needed for profile with scheduler name {name:?}");
        errors.push(FieldError::new(format!("{path}.plugins.bind"), reason));
    }
    let [sort] = used(Point::QueueSort) else {
        let count = used(Point::QueueSort).len();
        let reason =
            format!("one queue sort plugin required for profile with scheduler name {name:?}, but got {count}");
        errors.push(FieldError::new(format!("{path}.plugins.queueSort"), reason));
        return None;
    };
    if errors.len() > before {
        return None;
    }
    let sort = known.get(&sort.name)?.points.queue_sort.clone()?;
    let built = Profile::assembled(name, sort, arrange(&order, &known));
    let percent = profile.percentage_of_nodes_to_score.and_then(|percent| u8::try_from(percent).ok());
    Some(match percent {
        Some(percent) => built.percentage_of_nodes_to_score(percent),
        None => built,
    })
}

fn unknown(name: &str, path: String) -> FieldError {
    if REMOVED.contains(&name) {
        let version = super::API_VERSION;
        let detail = format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})");
        return FieldError::invalid(path, name, detail);
    }
    FieldError::not_found(path, name)
}

/// Refuses what is enabled twice.
fn once_each(uses: Vec<Use>, errors: &mut Vec<FieldError>) -> Vec<Use> {
    let mut kept: Vec<Use> = Vec::new();
    for plugin in uses {
        if kept.iter().any(|other| other.name == plugin.name) {
            errors.push(FieldError::duplicate(format!("{}.name", plugin.path), &plugin.name));
        } else {
            kept.push(plugin);
        }
    }
    kept
}

/// Makes a plugin that was added to the registry, in the place of a default plugin of its name.
fn make(
    plugin: &Use,
    profile: &KubeSchedulerProfile,
    path: &str,
    registry: &Registry,
    known: &mut BTreeMap<String, Enabled>,
    errors: &mut Vec<FieldError>,
) {
    let name = &plugin.name;
    let config = profile.plugin_config.iter().position(|config| config.name == *name);
    let (args, path) = match config {
        Some(index) => (profile.plugin_config[index].args.clone(), format!("{path}.pluginConfig[{index}].args")),
        None => (Value::Null, plugin.path.clone()),
    };
    match registry.make(name, &args, &path) {
        Some(Ok(enabled)) => drop(known.insert(name.clone(), enabled)),
        Some(Err(error)) => errors.push(error),
        None if known.contains_key(name) => {}
        None => errors.push(unknown(name, format!("{}.name", plugin.path))),
    }
}

/// Points where the order of the plugins shows: in which of several reasons is told, or in what happens first.
const ORDERED: [Point; 7] =
    [Point::PreEnqueue, Point::PostFilter, Point::Reserve, Point::Permit, Point::PreBind, Point::Bind, Point::PostBind];

/// One list of plugins, in whose order all points are run, from the order of each point: that of Filter, then what the others add. A
/// plugin that is to run at one point before and at another point behind the same other one is in the list twice. PreFilter runs in
/// the order of Filter; scores are sums, for which the order does not matter.
fn arrange(order: &BTreeMap<Point, Vec<Use>>, known: &BTreeMap<String, Enabled>) -> Vec<Enabled> {
    let uses = |point: Point| order.get(&point).map(Vec::as_slice).unwrap_or_default();
    let mut list: Vec<(String, Enabled)> = Vec::new();
    // Where a plugin is from a place on, or is put at the end.
    let place = |name: &str, from: usize, list: &mut Vec<(String, Enabled)>| -> Option<usize> {
        let found = list.iter().skip(from).position(|(other, _)| other == name);
        if let Some(at) = found {
            return Some(from + at);
        }
        let plugin = known.get(name)?.plugin.clone();
        list.push((name.to_owned(), Enabled { plugin, points: Points::default() }));
        Some(list.len() - 1)
    };
    let put = |point: Point, ordered: bool, list: &mut Vec<(String, Enabled)>| {
        let mut from = 0;
        for plugin in uses(point) {
            let Some(at) = place(&plugin.name, from, list) else { continue };
            let Some(made) = known.get(&plugin.name) else { continue };
            let points = &mut list[at].1.points;
            points.take_over(point, &made.points);
            if point == Point::Score {
                points.score = made.points.score.as_ref().map(|(score, _)| (score.clone(), plugin.weight));
            }
            from = if ordered { at + 1 } else { 0 };
        }
    };
    put(Point::Filter, true, &mut list);
    for point in [Point::PreFilter, Point::PreScore, Point::Score] {
        put(point, false, &mut list);
    }
    for point in ORDERED {
        put(point, true, &mut list);
    }
    list.into_iter().map(|(_, enabled)| enabled).collect()
}
