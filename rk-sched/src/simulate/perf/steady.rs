//! Pods that come as fast as others are scheduled (`steadyState` of `createPods`).

use std::sync::Arc;

use super::{
    super::{
        objects,
        template::Values,
        workload::{Action, Job, Scope, Steady, Step},
    },
    PerfError,
    build::{Builder, Template, name_of},
    format::CreatePods,
};

impl Builder<'_> {
    pub(super) fn is_steady(&self, op: &CreatePods) -> Result<bool, PerfError> {
        let Some(name) = &op.steady_state_param else { return Ok(op.steady_state) };
        self.parameter(name)?
            .as_bool()
            .ok_or_else(|| self.wrong(format!("parameter {name:?} is neither true nor false")))
    }

    /// Creates so many pods; each that is scheduled is deleted, and another one is created, until the time is over.
    pub(super) fn create_pods_steadily(
        &mut self,
        number: usize,
        op: &CreatePods,
        namespace: &str,
        (count, others): (u64, Vec<(String, String)>),
        template: Arc<Template>,
    ) -> Result<(), PerfError> {
        if op.persistent_volume_claim_template_path.is_some() || op.persistent_volume_template_path.is_some() {
            return Err(self.wrong("createPods: steadyState with volumes is not supported"));
        }
        let duration = self.duration("createPods", op.duration.as_deref(), op.duration_param.as_deref())?;
        let within = namespace.to_owned();
        let make = move |index: u64| -> Result<Action, PerfError> {
            let value = template.object(&Values { index, count, others: &others })?;
            let name = name_of(&value, number, index);
            let pod = objects::pod(value, &name, &within).map_err(|error| PerfError::new(&template.path, error))?;
            Ok(Action::CreatePod(Arc::new(Job { pod: Arc::new(pod), duration: None, restarts: false })))
        };
        // What is of no use is told now, and not while it runs.
        make(0)?;
        let scope = Scope::namespace(namespace);
        let make = move |index| make(index).ok();
        if op.collect_metrics {
            self.steps.push(Step::StartMeasuring(scope.clone()));
        }
        self.steps.push(Step::Steady(Steady { scope, count, duration, make: Arc::new(make) }));
        if op.collect_metrics {
            self.steps.push(Step::StopMeasuring);
        }
        Ok(())
    }
}
