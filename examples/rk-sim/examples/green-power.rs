//! From an idea to a figure: is it worth it to prefer nodes that run on green power? A score plugin, a cluster in which some nodes do,
//! and three weights of the plugin side by side.

use std::{error::Error, sync::Arc};

use rk_sched::{
    Profile, Registration,
    framework::{CycleState, MAX_SCORE, MIN_SCORE, Plugin, Score, Status},
    model::{NodeInfo, PodInfo},
    simulate::{
        Experiment, Options, Variant, Workload, report, trace,
        workload::{Action, Step},
    },
};

/// Better a node whose label `power` says `green`.
struct GreenPower;

impl Plugin for GreenPower {
    fn name(&self) -> &'static str {
        "GreenPower"
    }
}

impl Score for GreenPower {
    fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let green = node.labels().get("power").is_some_and(|power| power == "green");
        Ok(if green { MAX_SCORE } else { MIN_SCORE })
    }
}

/// Kubernetes' profile with the plugin, at this weight.
fn green(weight: i64) -> Variant {
    let plugin = move || Registration::new(GreenPower).score(weight);
    Variant::profile(format!("green {weight}"), move || Profile::kubernetes("default-scheduler").with(plugin()))
}

/// A generated trace in which the nodes of one zone run on green power.
fn workload() -> Result<Workload, trace::TraceError> {
    let mut workload = trace::generate(60, 3000, 0.7, 1).workload("green power")?;
    for step in &mut workload.steps {
        let Step::Play { actions, .. } = step else { continue };
        for (_, action) in actions {
            let Action::SetNode(node) = action else { continue };
            let labels = Arc::make_mut(node).metadata.labels.get_or_insert_default();
            if labels.get("topology.kubernetes.io/zone").is_some_and(|zone| zone == "zone-0") {
                labels.insert("power".to_owned(), "green".to_owned());
            }
        }
    }
    Ok(workload)
}

fn main() -> Result<(), Box<dyn Error>> {
    let default = Variant::profile("default", || Profile::kubernetes("default-scheduler"));
    let experiment = Experiment {
        workload: workload()?,
        variants: vec![default, green(1), green(10)],
        options: Options { share_by: Some("power".to_owned()), ..Options::default() },
        seeds: (1..=5).collect(),
    };
    let comparison = experiment.run(2, &|_, _, _| {})?;
    print!("{}", report::table(&comparison));
    std::fs::write("green-power.html", report::html(&comparison)?)?;
    println!("the figures are in green-power.html");
    Ok(())
}
