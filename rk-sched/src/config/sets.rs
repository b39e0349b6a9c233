//! Which plugins are in use at which extension point, in which order: plugin sets merged with the default plugins and expanded
//! (Kubernetes' `mergePluginSet` and `expandMultiPointPlugins`).

use std::collections::BTreeMap;

use super::{FieldError, PluginSet, Plugins};
use crate::framework::{Enabled, Point};

/// A plugin at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) name: String,
    /// Not 0; less than 0 for the worse the better, which kube-scheduler takes too.
    pub(super) weight: i64,
    /// The field that says so; empty for a default plugin.
    pub(super) path: String,
}

/// The default plugins and those of `multiPoint`; the latter give the weights of default ones, in their places.
pub(super) fn multi_point(defaults: &[(&str, i64)], set: &PluginSet, path: &str) -> Vec<Use> {
    let mut enabled: Vec<Option<Use>> = uses(set, path).into_iter().map(Some).collect();
    let mut all = Vec::new();
    for (name, weight) in defaults.iter().filter(|(name, _)| !disables(set, name)) {
        // Of several settings of one plugin the last one counts here; the others are duplicates, which are refused.
        let replaced = enabled.iter_mut().rev().find(|other| other.as_ref().is_some_and(|other| other.name == *name));
        all.push(match replaced.and_then(Option::take) {
            Some(replaced) => replaced,
            None => Use { name: (*name).to_owned(), weight: *weight, path: String::new() },
        });
    }
    all.extend(enabled.into_iter().flatten());
    all
}

/// What a set enables.
pub(super) fn uses(set: &PluginSet, path: &str) -> Vec<Use> {
    let enabled = set.enabled.iter().enumerate();
    enabled
        .map(|(index, plugin)| Use {
            name: plugin.name.clone(),
            weight: plugin.weight.filter(|weight| *weight != 0).map_or(1, i64::from),
            path: format!("{path}.enabled[{index}]"),
        })
        .collect()
}

/// Whether a default plugin, or one of `multiPoint`, is left out by a set.
fn disables(set: &PluginSet, name: &str) -> bool {
    set.disabled.iter().any(|plugin| plugin.name == "*" || plugin.name == name)
}

/// The set of an extension point, and the field that has it.
pub(super) fn set_of(plugins: &Plugins, point: Point) -> (&PluginSet, &'static str) {
    match point {
        Point::PreEnqueue => (&plugins.pre_enqueue, "preEnqueue"),
        Point::QueueSort => (&plugins.queue_sort, "queueSort"),
        Point::PreFilter => (&plugins.pre_filter, "preFilter"),
        Point::Filter => (&plugins.filter, "filter"),
        Point::PostFilter => (&plugins.post_filter, "postFilter"),
        Point::PreScore => (&plugins.pre_score, "preScore"),
        Point::Score => (&plugins.score, "score"),
        Point::Reserve => (&plugins.reserve, "reserve"),
        Point::Permit => (&plugins.permit, "permit"),
        Point::PreBind => (&plugins.pre_bind, "preBind"),
        Point::Bind => (&plugins.bind, "bind"),
        Point::PostBind => (&plugins.post_bind, "postBind"),
    }
}

/// The plugins in use at a point, in order: those that it names and `multiPoint` has too, the others of `multiPoint`, then the others that
/// it names.
pub(super) fn at_point(
    point: Point,
    set: &PluginSet,
    path: &str,
    multi_point: &[Use],
    known: &BTreeMap<String, Enabled>,
    errors: &mut Vec<FieldError>,
) -> Vec<Use> {
    let mut named: Vec<Use> = Vec::new();
    for plugin in uses(set, path) {
        let Some(enabled) = known.get(&plugin.name) else { continue };
        let name = format!("{}.name", plugin.path);
        if !enabled.points.has(point) {
            let detail = format!("the plugin has no part in this extension point ({point:?})");
            errors.push(FieldError::invalid(name, plugin.name.as_str(), detail));
        } else if named.iter().any(|other| other.name == plugin.name) {
            errors.push(FieldError::duplicate(name, &plugin.name));
        } else {
            named.push(plugin);
        }
    }
    let has_point = |plugin: &&Use| known.get(&plugin.name).is_some_and(|enabled| enabled.points.has(point));
    let multi: Vec<&Use> = multi_point.iter().filter(has_point).filter(|plugin| !disables(set, &plugin.name)).collect();
    let (overriding, only_named): (Vec<Use>, Vec<Use>) =
        named.into_iter().partition(|plugin| multi.iter().any(|other| other.name == plugin.name));
    let rest = multi.into_iter().filter(|plugin| !overriding.iter().any(|other| other.name == plugin.name));
    let rest: Vec<Use> = rest.cloned().collect();
    overriding.into_iter().chain(rest).chain(only_named).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Profile, Registration,
        plugins::{NodeName, NodeUnschedulable, TaintToleration},
    };

    fn set(value: Value) -> PluginSet {
        serde_json::from_value(value).unwrap()
    }

    fn shown(uses: &[Use]) -> Vec<(&str, i64)> {
        uses.iter().map(|plugin| (plugin.name.as_str(), plugin.weight)).collect()
    }

    const DEFAULTS: [(&str, i64); 3] = [("TaintToleration", 3), ("NodeName", 1), ("NodeUnschedulable", 1)];

    #[test]
    fn multi_point_adds_to_the_default_plugins_and_sets_their_weights() {
        let merged = |value| multi_point(&DEFAULTS, &set(value), "m");
        assert_eq!(shown(&merged(json!({}))), DEFAULTS);
        let added = merged(json!({"enabled": [{"name": "Mine", "weight": 7}, {"name": "NodeName", "weight": 4}]}));
        let expected = [("TaintToleration", 3), ("NodeName", 4), ("NodeUnschedulable", 1), ("Mine", 7)];
        assert_eq!(shown(&added), expected);
        assert_eq!(added[3].path, "m.enabled[0]");
        // What is enabled is so though it is disabled, too, but behind the default plugins and with weight 1.
        let both = merged(json!({"enabled": [{"name": "NodeName"}], "disabled": [{"name": "NodeName"}]}));
        assert_eq!(shown(&both), [("TaintToleration", 3), ("NodeUnschedulable", 1), ("NodeName", 1)]);
        let all = merged(json!({"enabled": [{"name": "TaintToleration"}], "disabled": [{"name": "*"}]}));
        assert_eq!(shown(&all), [("TaintToleration", 1)]);
    }

    #[test]
    fn an_extension_point_goes_before_multi_point() {
        let profile = Profile::empty("s")
            .with(Registration::new(TaintToleration).filter().score(1))
            .with(Registration::new(NodeName).filter())
            .with(Registration::new(NodeUnschedulable).filter());
        let known: BTreeMap<String, Enabled> =
            profile.enabled().iter().map(|enabled| (enabled.plugin.name().to_owned(), enabled.clone())).collect();
        let merged = multi_point(&DEFAULTS, &PluginSet::default(), "m");
        let mut errors = Vec::new();
        let mut at = |point, multi: &[Use], value| at_point(point, &set(value), "p", multi, &known, &mut errors);
        // What the point names goes first.
        let named = at(Point::Filter, &merged, json!({"enabled": [{"name": "NodeUnschedulable"}]}));
        assert_eq!(shown(&named), [("NodeUnschedulable", 1), ("TaintToleration", 3), ("NodeName", 1)]);
        let without = at(Point::Filter, &merged, json!({"disabled": [{"name": "NodeName"}]}));
        assert_eq!(shown(&without), [("TaintToleration", 3), ("NodeUnschedulable", 1)]);
        // Of those that take part in it only, with the weight that the point gives.
        let weighed = at(Point::Score, &merged, json!({"enabled": [{"name": "TaintToleration", "weight": 9}]}));
        assert_eq!(shown(&weighed), [("TaintToleration", 9)]);
        let only = at(Point::Filter, &merged[..1], json!({"enabled": [{"name": "NodeName"}]}));
        assert_eq!(shown(&only), [("TaintToleration", 3), ("NodeName", 1)]);
        let none = at(Point::Filter, &merged, json!({"disabled": [{"name": "*"}]}));
        assert_eq!(shown(&none), []);
        // What is disabled at the point, `*` included, may be enabled there.
        let one = at(Point::Filter, &merged, json!({"disabled": [{"name": "*"}], "enabled": [{"name": "NodeName"}]}));
        assert_eq!(shown(&one), [("NodeName", 1)]);
        assert_eq!(errors, []);
    }

    #[test]
    fn a_plugin_is_enabled_once_and_where_it_takes_part() {
        let profile = Profile::empty("s").with(Registration::new(NodeName).filter());
        let known = BTreeMap::from([("NodeName".to_owned(), profile.enabled()[1].clone())]);
        let mut errors = Vec::new();
        let twice = set(json!({"enabled": [{"name": "NodeName"}, {"name": "NodeName"}]}));
        at_point(Point::Filter, &twice, "filter", &[], &known, &mut errors);
        at_point(Point::Score, &set(json!({"enabled": [{"name": "NodeName"}]})), "score", &[], &known, &mut errors);
        let told: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        assert_eq!(
            told,
            [
                "filter.enabled[1].name: Duplicate value: \"NodeName\"",
                "score.enabled[0].name: Invalid value: \"NodeName\": the plugin has no part in this extension point (Score)",
            ]
        );
    }
}
