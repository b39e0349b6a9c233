//! The arithmetic: surge, unavailability, proportions.

use k8s_openapi::{
    api::apps::v1::{DeploymentSpec, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A number or a percentage of `total`; rubbish is 0, as validation lets none through.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|percent| percent.parse().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}

/// How many pods may be there beyond the wanted ones, and how many of the wanted may be missing, in a rolling update.
/// Not both are 0: a rollout must be able to move (`ResolveFenceposts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fenceposts {
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
}

/// The fenceposts of a Deployment; both 0 where it does not roll.
pub(super) fn fenceposts(spec: &DeploymentSpec) -> Fenceposts {
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref().is_some_and(|kind| kind != "RollingUpdate") {
        return Fenceposts { max_surge: 0, max_unavailable: 0 };
    }
    let quarter = || Some(IntOrString::String("25%".to_owned()));
    let rolling = strategy
        .rolling_update
        .unwrap_or_else(|| RollingUpdateDeployment { max_surge: quarter(), max_unavailable: quarter() });
    let max_surge = scaled(rolling.max_surge.as_ref(), replicas, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, false);
    let max_unavailable = if max_surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Fenceposts { max_surge, max_unavailable: max_unavailable.min(replicas) }
}

/// How much a ReplicaSet of `size` changes when the Deployment's greatest size goes from `before` to `after`.
pub(super) fn fraction(size: i32, before: i32, after: i32) -> i32 {
    if before <= 0 {
        return 0;
    }
    let (size, before, after) = (i64::from(size), i64::from(before), i64::from(after));
    // Rounded half away from zero; all are positive.
    let scaled = (2 * size * after + before) / (2 * before);
    i32::try_from(scaled - size).unwrap_or(0)
}

/// The part of `to_add` (negative to remove) that falls to a ReplicaSet, when `added` has been given out already.
pub(super) fn share(fraction: i32, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> DeploymentSpec {
        serde_json::from_value(json!({
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        }))
        .unwrap()
    }

    #[test]
    fn surge_rounds_up_and_unavailability_down() {
        for (replicas, surge, unavailable, expected) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (3, json!(0), json!("10%"), (0, 1)),
            (0, json!(0), json!(0), (0, 0)),
            (2, json!(1), json!("100%"), (1, 2)),
            (2, json!(0), json!(5), (0, 2)),
        ] {
            let posts = fenceposts(&spec(replicas, surge, unavailable));
            assert_eq!((posts.max_surge, posts.max_unavailable), expected, "{replicas}");
        }
    }

    #[test]
    fn shares_are_in_proportion_and_never_too_much() {
        // 5 of 10 grow with 10 -> 20.
        assert_eq!(fraction(5, 10, 20), 5);
        assert_eq!(fraction(3, 11, 6), -1);
        assert_eq!(share(5, 10, 8), 2);
        assert_eq!(share(-3, -4, -2), -2);
        assert_eq!(share(1, 10, 0), 1);
    }
}
