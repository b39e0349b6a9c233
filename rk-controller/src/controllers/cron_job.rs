//! CronJobs: a Job at each time of a schedule.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use rk_api::{DeleteOptions, Informer, Informers, Propagation, object_reference};
use tokio_util::sync::CancellationToken;

use super::job::finished_condition;
use crate::{Action, Context, Controller, Error, Reconcile, common::meta, error::is_terminating};

/// The annotation with the time that a Job was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are told of: a clock that jumped, or a controller that was down for long.
const MANY_MISSED: usize = 100;

/// Makes Jobs by schedules.
pub struct CronJobController {
    jobs: Informer,
}

/// Runs the CronJob controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let jobs = informers.of::<Job>();
    Controller::new("cronjob-controller", CronJobController { jobs }, informers).owns::<Job>().run(shutdown).await;
}

/// A schedule in its time zone.
struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    fn new(spec: &CronJobSpec) -> Result<Self, Error> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let unparseable = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("unparseable schedule {:?}: {error}", spec.schedule))
        };
        let cron = parser.parse(&spec.schedule).map_err(|error| unparseable(&error))?;
        let zone = match &spec.time_zone {
            Some(name) => TimeZone::get(name).map_err(|_| Error::invalid(format!("unknown time zone {name:?}")))?,
            None => TimeZone::UTC,
        };
        Ok(Self { cron, zone })
    }

    /// The first time after `after`; `None` for one that never comes (30 February).
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }

    /// The last time in `(after, until]`, and how many there were, as far as they were counted.
    fn last(&self, after: Timestamp, until: Timestamp) -> Option<(Timestamp, usize)> {
        let last = self.cron.find_previous_occurrence(&until.to_zoned(self.zone.clone()), true).ok()?.timestamp();
        if last <= after {
            return None;
        }
        let (mut count, mut at) = (0, after);
        while let Some(next) = self.next(at).filter(|next| *next <= until && count <= MANY_MISSED) {
            (count, at) = (count + 1, next);
        }
        Some((last, count))
    }
}

#[async_trait]
impl Reconcile for CronJobController {
    type Object = CronJob;

    async fn reconcile(&self, cron: Arc<CronJob>, context: &Context) -> Result<Action, Error> {
        let spec = cron.spec.clone();
        let own = self.jobs.controlled_by(meta::uid(&cron.metadata));
        let own = own.iter().map(|job| job.typed()).collect::<Result<Vec<Arc<Job>>, _>>()?;
        let about = object_reference(cron.as_ref());
        let mut status = cron.status.clone().unwrap_or_default();
        note_finished(&mut status, &own, &about, context);
        self.clean_up(&spec, &own, &about, context).await?;

        let mut action = Action::await_change();
        if spec.suspend != Some(true) && !meta::is_deleting(&cron.metadata) {
            let schedule = match Schedule::new(&spec) {
                Ok(schedule) => schedule,
                // Nothing comes of trying again before the author changes it.
                Err(error) => {
                    context.events.warning(&about, "UnparseableSchedule", error.to_string());
                    write(&cron, status, context).await?;
                    return Ok(action);
                }
            };
            let now = rk_api::now();
            start_due(&cron, &spec, &schedule, &own, &mut status, now, context).await?;
            if let Some(next) = schedule.next(now) {
                let left = u64::try_from(next.as_millisecond() - now.as_millisecond()).unwrap_or(0);
                action = Action::requeue(Duration::from_millis(left) + Duration::from_millis(100));
            }
        }
        write(&cron, status, context).await?;
        Ok(action)
    }
}

async fn write(cron: &CronJob, status: CronJobStatus, context: &Context) -> Result<(), Error> {
    if cron.status.as_ref() == Some(&status) || (cron.status.is_none() && status == CronJobStatus::default()) {
        return Ok(());
    }
    let changed = CronJob { status: Some(status), ..cron.clone() };
    match context.api::<CronJob>(meta::namespace(&cron.metadata)).update_status(&changed).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Takes Jobs that have ended or are gone from the active ones, and notes running ones that are not there.
fn note_finished(status: &mut CronJobStatus, own: &[Arc<Job>], about: &ObjectReference, context: &Context) {
    let mut active = status.active.take().unwrap_or_default();
    for job in own {
        let uid = job.metadata.uid.as_deref();
        let listed = active.iter().any(|reference| reference.uid.as_deref() == uid);
        match finished_condition(job) {
            Some(condition) => {
                if listed {
                    let (name, how) = (meta::name(&job.metadata), &condition.type_);
                    let message = format!("Saw completed job: {name}, condition: {how}");
                    context.events.normal(about, "SawCompletedJob", message);
                }
                active.retain(|reference| reference.uid.as_deref() != uid);
                let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
                if condition.type_ == "Complete" && ended > status.last_successful_time {
                    status.last_successful_time = ended;
                }
            }
            // Made by this controller, which did not come to writing it down.
            None if !listed && meta::annotation(&job.metadata, SCHEDULED).is_some() => {
                active.push(object_reference(job.as_ref()));
            }
            None if !listed => {
                let name = meta::name(&job.metadata);
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                context.events.warning(about, "UnexpectedJob", message);
            }
            None => {}
        }
    }
    // One that was made a moment ago may not be in the copy yet; it is only taken out when it is known to be gone.
    let newest = status.last_schedule_time.as_ref().map(|time| time.0);
    active.retain(|reference| {
        let there = own.iter().any(|job| job.metadata.uid == reference.uid);
        let fresh = newest.is_some_and(|at| rk_api::now().as_second() - at.as_second() < 10);
        there || fresh
    });
    status.active = (!active.is_empty()).then_some(active);
}

/// Makes the Job of the last time that has passed, if it has not been made and is not too late.
async fn start_due(
    cron: &CronJob,
    spec: &CronJobSpec,
    schedule: &Schedule,
    own: &[Arc<Job>],
    status: &mut CronJobStatus,
    now: Timestamp,
    context: &Context,
) -> Result<(), Error> {
    let about = object_reference(cron);
    let mut from = status.last_schedule_time.as_ref().map_or_else(|| meta::created(&cron.metadata), |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        let earliest = Timestamp::from_second(now.as_second().saturating_sub(deadline)).unwrap_or(from);
        from = from.max(earliest);
    }
    let Some((at, missed)) = schedule.last(from, now) else { return Ok(()) };
    if missed > MANY_MISSED {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        context.events.warning(&about, "TooManyMissedTimes", message);
    }
    let name = format!("{}-{}", meta::name(&cron.metadata), at.as_second() / 60);
    if own.iter().any(|job| meta::name(&job.metadata) == name) {
        status.last_schedule_time = Some(Time(at));
        return Ok(());
    }
    let jobs = context.api::<Job>(meta::namespace(&cron.metadata));
    let running = status.active.clone().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            context.events.normal(&about, "JobAlreadyActive", message);
            return Ok(());
        }
        Some("Replace") => {
            for reference in &running {
                delete(reference.name.as_deref().unwrap_or_default(), &about, context, &jobs).await?;
            }
            status.active = None;
        }
        _ => {}
    }
    let mut annotations =
        spec.job_template.metadata.as_ref().and_then(|meta| meta.annotations.clone()).unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let job = Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: spec.job_template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    };
    match jobs.create(&job).await {
        Ok(made) => {
            context.events.normal(&about, "SuccessfulCreate", format!("Created job {name}"));
            status.active.get_or_insert_default().push(object_reference(made.as_ref()));
        }
        Err(error) if error.is_already_exists() => {}
        Err(error) if is_terminating(&error) => return Ok(()),
        Err(error) => {
            context.events.warning(&about, "FailedCreate", format!("Error creating job: {error}"));
            return Err(Error::told(error));
        }
    }
    status.last_schedule_time = Some(Time(at));
    Ok(())
}

async fn delete(name: &str, about: &ObjectReference, context: &Context, jobs: &rk_api::Api<Job>) -> Result<(), Error> {
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    match jobs.delete(name, options).await {
        Ok(_) => {
            context.events.normal(about, "SuccessfulDelete", format!("Deleted job {name}"));
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl CronJobController {
    /// Deletes the oldest ended Jobs beyond the history limits.
    async fn clean_up(
        &self,
        spec: &CronJobSpec,
        own: &[Arc<Job>],
        about: &ObjectReference,
        context: &Context,
    ) -> Result<(), Error> {
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let mut ended: Vec<_> = own
                .iter()
                .filter(|job| finished_condition(job).is_some_and(|condition| condition.type_ == kind))
                .filter(|job| !meta::is_deleting(&job.metadata))
                .collect();
            ended.sort_by_key(|job| (meta::created(&job.metadata), meta::name(&job.metadata)));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in ended.into_iter().take(surplus) {
                let jobs = context.api::<Job>(meta::namespace(&job.metadata));
                delete(meta::name(&job.metadata), about, context, &jobs).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: Option<&str>) -> Result<Schedule, Error> {
        Schedule::new(&CronJobSpec {
            schedule: cron.to_owned(),
            time_zone: zone.map(str::to_owned),
            ..CronJobSpec::default()
        })
    }

    #[test]
    fn times_come_as_the_schedule_says_in_its_zone() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let quarter = schedule("*/15 * * * *", None).unwrap();
        assert_eq!(quarter.next(at("2026-01-01T00:14:59Z")), Some(at("2026-01-01T00:15:00Z")));
        let (last, missed) = quarter.last(at("2026-01-01T00:00:00Z"), at("2026-01-01T01:01:00Z")).unwrap();
        assert_eq!((last, missed), (at("2026-01-01T01:00:00Z"), 4));
        assert!(quarter.last(at("2026-01-01T01:00:00Z"), at("2026-01-01T01:10:00Z")).is_none());
        let tokyo = schedule("0 9 * * 1-5", Some("Asia/Tokyo")).unwrap();
        assert_eq!(tokyo.next(at("2026-01-02T12:00:00Z")), Some(at("2026-01-05T00:00:00Z")));
        for bad in [("61 * * * *", None), ("* * * * * *", None), ("0 0 * * *", Some("Nowhere/City"))] {
            assert!(schedule(bad.0, bad.1).is_err(), "{bad:?}");
        }
    }
}
