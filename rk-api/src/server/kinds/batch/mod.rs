//! Work that ends: Jobs, and the CronJobs that make them.

mod cron_job;
mod job;
mod policies;
mod schedule;

pub use cron_job::{CRON_JOB, cron_job_columns};
pub use job::{JOB, job_columns};
