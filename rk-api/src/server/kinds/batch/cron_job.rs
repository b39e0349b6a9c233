//! CronJobs.

use serde_json::Value;

use super::{job::job_spec, schedule};
use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, age, column, container_images, container_names, or_none, selector, wide},
        field::{Errors, Path},
        meta,
        pod::{template, warnings},
        rules::Rules,
        value::{Peek, fill, object_mut},
    },
};

/// The rules of CronJobs.
pub const CRON_JOB: Rules = Rules {
    default,
    validate,
    warn: |object, old, warnings| {
        warnings::named_workload(object, old, "spec.jobTemplate.spec.template", warnings);
    },
    has_status: true,
    pod_spec: "spec.jobTemplate.spec.template.spec",
    ..Rules::NONE
};

/// The columns of CronJobs.
pub fn cron_job_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Schedule", "string", |cron| cron.text("spec.schedule").into()),
        column("Timezone", "string", |cron| or_none(cron.text("spec.timeZone"))),
        column("Suspend", "boolean", |cron| match cron.at("spec.suspend").as_bool() {
            Some(true) => "True".into(),
            Some(false) => "False".into(),
            None => "<unset>".into(),
        }),
        column("Active", "integer", |cron| cron.list("status.active").len().into()),
        column("Last Schedule", "string", |cron| match cron.text("status.lastScheduleTime") {
            "" => or_none(""),
            time => age(time).into(),
        }),
        AGE,
        wide("Containers", "string", |cron| container_names(cron.at("spec.jobTemplate.spec.template.spec"))),
        wide("Images", "string", |cron| container_images(cron.at("spec.jobTemplate.spec.template.spec"))),
        wide("Selector", "string", |cron| selector(cron.at("spec.jobTemplate.spec.selector"))),
    ]
}

fn default(cron: &mut Value) {
    template::default(cron, "spec.jobTemplate.spec.template");
    if let Some(spec) = object_mut(cron, "spec") {
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
    }
}

fn validate(cron: &Value, errors: &mut Errors) {
    let (spec, path) = (cron.at("spec"), Path::Root.child("spec"));
    let text = spec.text("schedule");
    let schedule_path = path.child("schedule");
    if text.is_empty() {
        errors.required(&schedule_path, "");
    } else if text.contains("TZ") {
        errors.invalid(&schedule_path, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Some(detail) = schedule::error(text) {
        errors.invalid(&schedule_path, text, &detail);
    }
    time_zone(spec, &path.child("timeZone"), errors);
    errors.required_one_of(
        &path.child("concurrencyPolicy"),
        spec.text("concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
    );
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&path.child(field), spec.int(field));
    }
    let (job, job_path) = (spec.at("jobTemplate"), path.child("jobTemplate"));
    let metadata = job_path.child("metadata");
    meta::labels(job.at("metadata"), &metadata.child("labels"), errors);
    meta::annotations(job.at("metadata"), &metadata.child("annotations"), errors);
    let spec_path = job_path.child("spec");
    job_spec(job.at("spec"), &spec_path, errors);
    if job.flag("spec.manualSelector") {
        errors.not_supported(&spec_path.child("manualSelector"), &true, &["nil", "false"]);
    }
}

fn time_zone(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !spec.has("timeZone") {
        return;
    }
    let zone = spec.text("timeZone");
    if zone.is_empty() {
        errors.invalid(path, "", "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        errors.invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}
