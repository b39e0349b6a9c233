//! How a simulated cluster behaves.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::clock::FAR;

/// Times and misfortunes of a simulated cluster. Durations are in the cluster's time, which costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How long the scheduler is busy with one pod.
    pub cycle: Duration,
    /// How long a binding, or another write of a plugin, takes on average; each takes half to one and a half of it.
    pub binding: Duration,
    /// How long a volume takes to be provided on average, the same way.
    pub provisioning: Duration,
    /// The part of the bindings that fail, from 0 to less than 1.
    pub binding_failures: f64,
    /// The part of the runs of pods that fail before their time, from 0 to less than 1.
    pub pod_failures: f64,
    /// How often a pod that fails is replaced (`backoffLimit` of a Job).
    pub retries: u32,
    /// How long a pod takes to stop when it is deleted; its grace period, if that is shorter.
    pub termination: Duration,
    /// Nodes that leave and come back.
    pub node_churn: Option<NodeChurn>,
    /// How long a workload waits for its pods to be as it wants them, before the simulation gives up.
    pub patience: Duration,
    /// When the simulation ends whatever is left to do.
    pub horizon: Option<Duration>,
    /// A label of nodes: by its values it is told which part of the work lies on nodes that have them.
    pub share_by: Option<String>,
    /// Pods, as `namespace/name`, whose history is kept.
    pub explain: Vec<String>,
}

/// Nodes that leave, with the pods on them, and come back empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeChurn {
    /// The mean time that a node is there; the times are exponentially distributed.
    pub between_failures: Duration,
    /// The mean time that it is away.
    pub outage: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cycle: Duration::from_millis(1),
            binding: Duration::from_millis(5),
            provisioning: Duration::from_secs(2),
            binding_failures: 0.0,
            pod_failures: 0.0,
            retries: 6,
            termination: Duration::from_secs(1),
            node_churn: None,
            patience: Duration::from_secs(600),
            horizon: None,
            share_by: None,
            explain: Vec::new(),
        }
    }
}

/// An option that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Not a part that leaves something to succeed.
    #[error("{0} is {1}: must be 0 or more and less than 1")]
    Part(&'static str, f64),
    /// No time at all.
    #[error("{0} must be longer than 0")]
    Zero(&'static str),
    /// Longer than anything that is simulated.
    #[error("{0} must not be longer than a century")]
    TooLong(&'static str),
}

impl Options {
    /// Whether the options make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), OptionsError> {
        for (name, part) in [("binding_failures", self.binding_failures), ("pod_failures", self.pod_failures)] {
            if !(0.0..1.0).contains(&part) {
                return Err(OptionsError::Part(name, part));
            }
        }
        let churn = self.node_churn.iter();
        let churn = churn.flat_map(|churn| [("between_failures", churn.between_failures), ("outage", churn.outage)]);
        if let Some((name, _)) = churn.clone().find(|(_, time)| time.is_zero()) {
            return Err(OptionsError::Zero(name));
        }
        let mut times = [
            ("cycle", self.cycle),
            ("binding", self.binding),
            ("provisioning", self.provisioning),
            ("termination", self.termination),
        ]
        .into_iter()
        .chain(churn);
        times.find(|(_, time)| *time > FAR).map_or(Ok(()), |(name, _)| Err(OptionsError::TooLong(name)))
    }
}

/// What chance decides, each kind from a source of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chance {
    Binding = 1,
    PodFailure = 2,
    NodeFailure = 3,
    Outage = 4,
    Write = 5,
    Provisioning = 6,
    BindingFailure = 7,
    Allocation = 8,
}

/// A number of a text, the same each time (FNV-1a): who it is that chance decides about.
pub(super) fn number_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The source of one decision. It depends on what is decided and not on what was decided before, so that two schedulers meet the
/// same misfortunes (common random numbers).
pub(super) fn chance(seed: u64, what: Chance, who: u64, time: u64) -> StdRng {
    let mut mixed = seed;
    // The finalizer of splitmix64, after each part.
    for part in [what as u64, who, time] {
        mixed = mixed.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    StdRng::seed_from_u64(mixed)
}

/// An exponentially distributed time of this mean.
pub(super) fn exponential(random: &mut StdRng, mean: Duration) -> Duration {
    let uniform: f64 = random.random_range(f64::EPSILON..1.0);
    mean.mul_f64(-uniform.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_times_are_checked() {
        assert_eq!(Options::default().check(), Ok(()));
        let wrong = Options { pod_failures: 1.0, ..Options::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "pod_failures is 1: must be 0 or more and less than 1");
        let churn = NodeChurn { between_failures: Duration::from_secs(1), outage: Duration::ZERO };
        let wrong = Options { node_churn: Some(churn), ..Options::default() };
        assert_eq!(wrong.check(), Err(OptionsError::Zero("outage")));
        let wrong = Options { binding: Duration::MAX, ..Options::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "binding must not be longer than a century");
        let patient = Options { patience: Duration::MAX, horizon: Some(Duration::MAX), ..Options::default() };
        assert_eq!(patient.check(), Ok(()), "these may be without end");
    }

    #[test]
    fn chance_has_the_mean_that_it_should_and_is_the_same_each_time() {
        let mean = Duration::from_secs(100);
        let draw = |who| exponential(&mut chance(7, Chance::Outage, who, 0), mean).as_secs_f64();
        let sum: f64 = (0..10_000).map(draw).sum();
        assert!((95.0..105.0).contains(&(sum / 10_000.0)), "{sum}");
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
