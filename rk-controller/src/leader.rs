//! Leader election on a Lease: of several copies of a program one works, and another takes over when it ends.
//!
//! The rules are client-go's `leaderelection`: the holder renews the Lease; the others watch it from their own clocks
//! and take it when it was not renewed for its duration. It is a wrapper: what is wrapped knows nothing of it.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use rand::RngExt;
use rk_api::{Api, Client, EventRecorder, WriteOptions, object_reference};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How a program takes part in an election.
#[derive(Debug, Clone)]
pub struct LeaderElectionConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease, the same for all that compete.
    pub name: String,
    /// Who this is, unlike all others: host name and a random part, say.
    pub identity: String,
    /// How long others wait after the last renewal before they take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up; shorter than the lease.
    pub renew_deadline: Duration,
    /// How often it tries.
    pub retry_period: Duration,
    /// Whether the Lease is given back when the work ends, so that another need not wait.
    pub release_on_cancel: bool,
}

impl LeaderElectionConfig {
    /// With kube-controller-manager's times: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
        }
    }
}

/// Times that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("leader election needs lease duration > renew deadline > 1.2 x retry period > 0 and an identity, but has {0}")]
pub struct LeaderElectionConfigError(String);

/// How leading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The shutdown was asked for.
    Shutdown,
    /// The work came to its end by itself.
    Finished,
    /// The Lease could not be renewed in time: another may lead now.
    Lost,
}

/// Competes for a Lease.
pub struct LeaderElector {
    leases: Api<Lease>,
    events: EventRecorder,
    config: LeaderElectionConfig,
    /// The Lease as it was last seen to change, and when: others' clocks are not trusted.
    observed: Option<(LeaseSpec, Instant)>,
}

impl LeaderElector {
    /// An elector. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Times with which two could lead at once.
    pub fn new(client: Arc<dyn Client>, config: LeaderElectionConfig) -> Result<Self, LeaderElectionConfigError> {
        let sound = config.lease_duration > config.renew_deadline
            && config.renew_deadline > config.retry_period.mul_f64(JITTER)
            && !config.retry_period.is_zero()
            && !config.identity.is_empty();
        if !sound {
            return Err(LeaderElectionConfigError(format!("{config:?}")));
        }
        let options = WriteOptions::manager(&config.identity);
        let leases = Api::namespaced(Arc::clone(&client), &config.namespace).with_options(options);
        Ok(Self { leases, events: EventRecorder::new(client, &config.identity, ""), config, observed: None })
    }

    /// Waits until this one leads, and then does `work` until it ends, `shutdown` is asked for, or the Lease is lost. The token handed to
    /// `work` is cancelled in the last two cases, and `work` is awaited: it must end soon after.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        shutdown: CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Ended {
        tokio::select! {
            () = self.acquire() => {}
            () = shutdown.cancelled() => return Ended::Shutdown,
        }
        tracing::info!(lease = self.config.name, identity = self.config.identity, "leading");
        let stop = shutdown.child_token();
        let work = work(stop.clone());
        tokio::pin!(work);
        // The work sees the shutdown too, and may end first because of it.
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ended::Shutdown,
            () = self.renew() => Ended::Lost,
            () = &mut work => Ended::Finished,
        };
        if ended != Ended::Finished {
            stop.cancel();
            work.await;
        }
        if ended == Ended::Lost {
            tracing::warn!(lease = self.config.name, "leadership lost");
        } else if self.config.release_on_cancel {
            self.release().await;
        }
        ended
    }

    async fn acquire(&mut self) {
        loop {
            if self.try_hold().await {
                let message = format!("{} became leader", self.config.identity);
                if let Ok(Some(lease)) = self.leases.get_opt(&self.config.name).await {
                    self.events.normal(&object_reference(lease.as_ref()), "LeaderElection", message);
                }
                return;
            }
            // Not all at the same moment.
            let jitter = rand::rng().random_range(1.0..JITTER);
            sleep(self.config.retry_period.mul_f64(jitter)).await;
        }
    }

    /// Renews until that fails for too long.
    async fn renew(&mut self) {
        loop {
            sleep(self.config.retry_period).await;
            let renewed = timeout(self.config.renew_deadline, async {
                while !self.try_hold().await {
                    sleep(self.config.retry_period).await;
                }
            });
            if renewed.await.is_err() {
                return;
            }
        }
    }

    /// Takes or renews the Lease; answers whether this one holds it now.
    async fn try_hold(&mut self) -> bool {
        match self.hold().await {
            Ok(holds) => holds,
            Err(error) if error.is_conflict() || error.is_already_exists() => false,
            Err(error) => {
                tracing::warn!(lease = self.config.name, %error, "can't take or renew the lease");
                false
            }
        }
    }

    async fn hold(&mut self) -> Result<bool, rk_api::Error> {
        let now = rk_api::now();
        let Some(lease) = self.leases.get_opt(&self.config.name).await? else {
            let spec = self.spec(None, now);
            let metadata = ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() };
            let created = self.leases.create(&Lease { metadata, spec: Some(spec) }).await?;
            self.observe(created.spec.clone().unwrap_or_default());
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = self.observe(spec.clone());
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let expired = seen.elapsed() >= Duration::from_secs(duration);
        if !holder.is_empty() && holder != self.config.identity && !expired {
            return Ok(false);
        }
        let mut taken = Lease::clone(&lease);
        taken.spec = Some(self.spec(Some(&spec), now));
        let updated = self.leases.update(&taken).await?;
        self.observe(updated.spec.clone().unwrap_or_default());
        Ok(true)
    }

    /// Notes what the Lease says; answers since when it has said so.
    fn observe(&mut self, spec: LeaseSpec) -> Instant {
        match &self.observed {
            Some((known, since)) if *known == spec => *since,
            _ => {
                let now = Instant::now();
                self.observed = Some((spec, now));
                now
            }
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let old = old.cloned().unwrap_or_default();
        let mine = old.holder_identity.as_deref() == Some(&self.config.identity);
        let transitions = old.lease_transitions.unwrap_or(0);
        let first = old.holder_identity.is_none() && old.renew_time.is_none();
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX).max(1),
            ),
            renew_time: Some(MicroTime(now)),
            acquire_time: if mine { old.acquire_time } else { Some(MicroTime(now)) },
            lease_transitions: Some(if mine || first { transitions } else { transitions + 1 }),
            ..old
        }
    }

    /// Gives the Lease back: no holder, and only a second to wait.
    async fn release(&mut self) {
        let result = async {
            let lease = self.leases.get(&self.config.name).await?;
            let spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.config.identity) {
                return Ok(());
            }
            let mut free = Lease::clone(&lease);
            free.spec = Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(rk_api::now())),
                ..spec
            });
            self.leases.update(&free).await.map(drop)
        };
        // Bounded: who leaves must not wait for a server that does not answer.
        match timeout(self.config.renew_deadline, result).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = self.config.name, %error, "can't give the lease back"),
            Err(_) => tracing::warn!(lease = self.config.name, "can't give the lease back in time"),
        }
    }
}

/// The retry period is stretched by up to this factor (client-go's `JitterFactor`).
const JITTER: f64 = 1.2;
