//! Jobs: pods that run to their end, so many times.
//!
//! A reconciliation counts what has ended (`tracking`), decides whether the Job is over (`verdict`), and otherwise
//! brings the number of running pods to what is wanted (`running`). `policy` says what a failure means, `indexes` and
//! `pods` have the formats. The rules are those of Kubernetes' job controller.

mod indexes;
mod pods;
mod policy;
mod running;
mod tracking;
mod ttl;
mod verdict;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition, JobSpec, JobStatus},
    core::v1::{ObjectReference, Pod},
};
use rk_api::{Change, Informer, Informers, Key, LabelSelector, Resource, object_reference};
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Context, Controller, Error, Expectations, Reconcile,
    common::{
        claim,
        condition::{self, Condition},
        meta, pod,
    },
};
use policy::Verdict;
pub use ttl::{TtlController, run as run_ttl};

/// The `spec.managedBy` of Jobs that are this controller's; as is none.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

/// Keeps Jobs.
pub struct JobController {
    pods: Informer,
    expectations: Arc<Expectations>,
}

/// Runs the Job controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    let expectations = Arc::new(Expectations::default());
    let reconciler = JobController { pods: pods.clone(), expectations: Arc::clone(&expectations) };
    let jobs = Resource::of::<Job>();
    let observe = move |change: &Change| expectations.observe(change, &jobs);
    Controller::new("job-controller", reconciler, informers).watches_informer(pods, observe).run(shutdown).await;
}

/// Whether a Job has ended, well or not.
pub(crate) fn is_finished(job: &Job) -> bool {
    finished_condition(job).is_some()
}

/// The condition that says how a Job has ended.
pub(crate) fn finished_condition(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| matches!(condition.kind(), "Complete" | "Failed") && condition.status == "True")
}

#[async_trait]
impl Reconcile for JobController {
    type Object = Job;

    async fn reconcile(&self, job: Arc<Job>, context: &Context) -> Result<Action, Error> {
        let spec = job.spec.clone().ok_or_else(|| Error::invalid("a Job without spec"))?;
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGED_BY) {
            return Ok(Action::await_change());
        }
        let key = meta::key(&job.metadata);
        let api = context.api::<Pod>(&key.0);
        if is_finished(&job) {
            let left = self.pods.controlled_by(meta::uid(&job.metadata));
            let left = left.iter().map(|pod| pod.typed()).collect::<Result<Vec<Arc<Pod>>, _>>()?;
            tracking::release(&api, left).await?;
            return Ok(Action::await_change());
        }
        if job.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            self.release_orphans(&key, meta::uid(&job.metadata), context).await?;
        }
        let pending = self.expectations.pending(&key);
        let pods = match &spec.selector {
            Some(selector) => {
                claim::claim(context, job.as_ref(), &LabelSelector::from_spec(selector)?, &self.pods).await?
            }
            None => {
                let own = self.pods.controlled_by(meta::uid(&job.metadata));
                own.iter().map(|pod| pod.typed()).collect::<Result<_, _>>()?
            }
        };
        let mut sync = Sync {
            context,
            expectations: &self.expectations,
            about: object_reference(job.as_ref()),
            status: job.status.clone().unwrap_or_default(),
            job: Job::clone(&job),
            spec,
            key,
            pods,
        };
        sync.advance(pending).await
    }

    async fn gone(&self, key: &Key, context: &Context) -> Result<Action, Error> {
        self.expectations.forget(key);
        self.release_orphans(key, "", context).await?;
        Ok(Action::await_change())
    }
}

impl JobController {
    /// Lets go of pods of a Job of this name that is not the one of this uid: nobody will count them.
    async fn release_orphans(&self, key: &Key, uid: &str, context: &Context) -> Result<(), Error> {
        let mut orphans = Vec::new();
        for object in self.pods.list_namespace(&key.0) {
            if !object.meta().finalizers.iter().any(|finalizer| finalizer == tracking::FINALIZER) {
                continue;
            }
            let controller = object.meta().owner_references.iter().find(|owner| owner.controller == Some(true));
            let orphan = match controller {
                Some(owner) => owner.kind == "Job" && owner.name == key.1 && owner.uid != uid,
                None => object.meta().labels.get("batch.kubernetes.io/job-name") == Some(&key.1),
            };
            if orphan {
                orphans.push(object.typed::<Pod>()?);
            }
        }
        tracking::release(&context.api(&key.0), orphans).await
    }
}

/// One reconciliation of one Job.
struct Sync<'a> {
    context: &'a Context,
    expectations: &'a Expectations,
    about: ObjectReference,
    job: Job,
    spec: JobSpec,
    key: Key,
    pods: Vec<Arc<Pod>>,
    /// The status that is being made.
    status: JobStatus,
}

impl Sync<'_> {
    async fn advance(&mut self, pending: Option<Duration>) -> Result<Action, Error> {
        let mut ended = tracking::ended(&self.pods, self.only_failed(), |pod| {
            policy::judge(self.spec.pod_failure_policy.as_ref(), pod) == Verdict::Ignore
        });
        // The others come when these are seen to be released; until then nothing is known to be missing.
        let all_noted = ended.len() <= tracking::NOTED;
        ended.truncate(tracking::NOTED);
        let indexed = self.completions_if_indexed();
        tracking::settle(&mut self.status, &self.pods, indexed, &ended);
        self.count_failed_indexes();
        self.note_suspension();
        let mut action = pending.map_or_else(Action::await_change, Action::requeue);
        self.decide();
        let mut result = Ok(());
        let going = meta::is_deleting(&self.job.metadata);
        if self.is_deciding() || self.is_suspended() {
            if pending.is_none() {
                result = self.stop_all().await;
            }
        } else if !going {
            if let Some(left) = self.deadline_left() {
                action = action.or_sooner(Action::requeue(left));
            }
            if pending.is_none() && all_noted {
                match self.manage().await {
                    Ok(more) => action = action.or_sooner(more),
                    Err(error) => result = Err(error),
                }
            }
        }
        self.count_running();
        self.finish();
        self.write().await?;
        let api = self.context.api::<Pod>(&self.key.0);
        tracking::release(&api, ended.into_iter().map(|(pod, _)| pod).collect()).await?;
        result.map(|()| action)
    }

    async fn write(&mut self) -> Result<(), Error> {
        if self.job.status.as_ref() == Some(&self.status) {
            return Ok(());
        }
        let before = self.job.clone();
        let job = Job { status: Some(self.status.clone()), ..self.job.clone() };
        match self.context.api::<Job>(&self.key.0).update_status(&job).await {
            Ok(written) => self.job = Job::clone(&written),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.tell(&before);
        Ok(())
    }

    /// Events of what the status has come to say.
    fn tell(&self, before: &Job) {
        let old = before.status.clone().unwrap_or_default();
        for condition in self.status.conditions.iter().flatten() {
            let known = condition::get(&old.conditions, condition.kind());
            if known.is_some_and(|known| known.status == condition.status) {
                continue;
            }
            let (reason, message) = (condition.reason(), condition.message.clone().unwrap_or_default());
            match (condition.kind(), condition.status()) {
                ("Complete", "True") => self.context.events.normal(&self.about, "Completed", "Job completed"),
                ("Failed", "True") => self.context.events.warning(&self.about, reason, message),
                ("Suspended", "True") => self.context.events.normal(&self.about, "Suspended", "Job suspended"),
                ("Suspended", "False") => self.context.events.normal(&self.about, "Resumed", "Job resumed"),
                _ => {}
            }
        }
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions_if_indexed(&self) -> Option<i32> {
        self.is_indexed().then(|| self.spec.completions.unwrap_or(0))
    }

    /// Whether a pod is replaced only once it has ended (`podReplacementPolicy: Failed`).
    fn only_failed(&self) -> bool {
        match self.spec.pod_replacement_policy.as_deref() {
            Some(policy) => policy == "Failed",
            None => self.spec.pod_failure_policy.is_some(),
        }
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect()
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| meta::is_deleting(&pod.metadata) && !pod::is_terminal(pod)).count()
    }

    fn count_running(&mut self) {
        let active = self.active();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        self.status.active = Some(number(active.len())).filter(|count| *count != 0);
        self.status.ready = Some(number(active.iter().filter(|pod| pod::is_ready(pod)).count()));
        self.status.terminating = Some(number(self.terminating()));
    }

    fn note_suspension(&mut self) {
        let known = condition::get(&self.status.conditions, "Suspended").map(|known| known.status == "True");
        let note = |truth: &str, reason: &str, message: &str| {
            let condition = JobCondition::new("Suspended", truth, reason, message.to_owned());
            JobCondition { last_probe_time: condition.last_transition_time.clone(), ..condition }
        };
        if self.is_suspended() {
            self.status.start_time = None;
            condition::set(&mut self.status.conditions, note("True", "JobSuspended", "Job suspended"));
        } else {
            if known == Some(true) {
                condition::set(&mut self.status.conditions, note("False", "JobResumed", "Job resumed"));
            }
            if self.status.start_time.is_none() {
                self.status.start_time = Some(meta::now());
            }
        }
    }
}
