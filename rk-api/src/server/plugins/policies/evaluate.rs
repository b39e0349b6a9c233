//! The evaluation of a policy's expressions for one write.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use serde_json::Value;

use super::{
    super::{
        describe::{describe, objects},
        is,
    },
    environment::{Inputs, VARIABLES},
};
use crate::{
    Resource, Status,
    server::{
        AdmissionRequest, Reader,
        cel::{Answers, CALL_LIMIT, Failure, MAX_DEPTH, Meter, Program, Scope, Val, library::authorizer::Check},
    },
    status,
};

/// What a policy's expressions may cost together for one write (apiserver's `RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;
/// What match conditions may (`RuntimeCELCostBudgetMatchConditions`).
const CONDITIONS_BUDGET: u64 = BUDGET / 4;

/// A write as expressions see it.
pub(super) struct Seen {
    pub(super) object: Value,
    old: Arc<Value>,
    request: Value,
    namespace: Arc<Value>,
    check: Check,
}

impl Seen {
    /// A write whose objects are shown in the version of `shown`.
    pub(super) async fn of(request: &AdmissionRequest, shown: &Resource, reader: &dyn Reader) -> Result<Self, Status> {
        let mut namespace = Arc::default();
        if request.resource.namespaced && !is(&request.resource, "", "namespaces") {
            let found =
                reader.get("", "namespaces", "", &request.attributes.namespace).await.map_err(status::internal)?;
            let found = found.map(|found| found.typed::<Value>()).transpose().map_err(status::internal)?;
            namespace = found.unwrap_or_default();
        }
        let (object, old) = objects(request, reader, shown).await?;
        Ok(Self {
            object,
            old,
            request: describe(request, shown),
            namespace,
            check: Check::of_request(&request.attributes),
        })
    }

    pub(super) fn inputs<'a>(&'a self, params: &'a Value) -> Inputs<'a> {
        Inputs {
            object: &self.object,
            old: &self.old,
            request: &self.request,
            namespace: &self.namespace,
            params,
            check: &self.check,
        }
    }
}

/// A write as one plugin shows it to all that want to see it in the same version.
#[derive(Default)]
pub(in super::super) struct Shown(Option<(Resource, Seen)>);

impl Shown {
    pub(super) async fn of(
        &mut self,
        request: &AdmissionRequest,
        shown: &Resource,
        reader: &dyn Reader,
    ) -> Result<&Seen, Status> {
        let known = self.0.take().filter(|(resource, _)| resource == shown);
        let seen = match known {
            Some((_, seen)) => seen,
            None => Seen::of(request, shown, reader).await?,
        };
        Ok(&self.0.insert((shown.clone(), seen)).1)
    }
}

/// Evaluates expressions, each within its limit and all within theirs.
pub(super) struct Evaluation<'a, 'n> {
    values: [Val<'a>; VARIABLES],
    variables: &'a [Program],
    /// Variables are evaluated when they are first read.
    known: RefCell<Vec<Option<Result<Val<'a>, Failure>>>>,
    /// Levels of the expression that is being evaluated and of the variables that it reads, of which one may read the other.
    depth: Cell<usize>,
    answers: &'n Answers,
    left: u64,
}

impl<'a> Scope<'a> for Evaluation<'a, '_> {
    fn get(&self, at: usize, meter: &mut Meter<'_>) -> Result<Val<'a>, Failure> {
        let Some(variable) = at.checked_sub(VARIABLES) else { return Ok(self.values[at].clone()) };
        if let Some(known) = self.known.borrow().get(variable).cloned().flatten() {
            return known;
        }
        let program = self.variables.get(variable).ok_or_else(Failure::overload)?;
        // An expression is no deeper than the stack; so is one together with the variables that it reads.
        let outside = self.depth.get();
        let depth = outside + program.depth();
        if depth > usize::from(MAX_DEPTH) {
            return Err(Failure::Error(format!("variables are nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth.set(depth);
        let value = program.evaluate(self, meter);
        self.depth.set(outside);
        if let Some(known) = self.known.borrow_mut().get_mut(variable) {
            *known = Some(value.clone());
        }
        value
    }
}

impl<'a, 'n> Evaluation<'a, 'n> {
    pub(super) fn new(inputs: &Inputs<'a>, variables: &'a [Program], answers: &'n Answers) -> Result<Self, Failure> {
        let known = RefCell::new(vec![None; variables.len()]);
        Ok(Self { values: inputs.values()?, variables, known, depth: Cell::default(), answers, left: BUDGET })
    }

    pub(super) fn value(&mut self, program: &'a Program) -> Result<Val<'a>, Failure> {
        let mut meter = Meter::new(CALL_LIMIT.min(self.left), self.answers);
        self.depth.set(program.depth());
        let value = program.evaluate(&*self, &mut meter);
        self.left = self.left.saturating_sub(meter.spent());
        value
    }

    pub(super) fn holds(&mut self, program: &'a Program) -> Result<bool, Failure> {
        match self.value(program)? {
            Val::Bool(flag) => Ok(flag),
            _ => Err(Failure::overload()),
        }
    }

    /// Whether all conditions hold. One that does not decides, whatever fails besides.
    ///
    /// # Errors
    /// What failed, if none says no; or what the authorizer is to be asked.
    pub(super) fn all(&mut self, conditions: &'a [(String, Program)]) -> Result<bool, Failure> {
        let mut failed = None;
        let budget = std::mem::replace(&mut self.left, CONDITIONS_BUDGET);
        for (name, program) in conditions {
            match self.holds(program) {
                Ok(true) => {}
                Ok(false) => {
                    self.left = budget;
                    return Ok(false);
                }
                Err(Failure::Ask(check)) => return Err(Failure::Ask(check)),
                Err(failure) => {
                    failed.get_or_insert(Failure::Error(format!("match condition '{name}' failed: {failure}")));
                }
            }
        }
        self.left = budget;
        failed.map_or(Ok(true), Err)
    }
}

/// Evaluates until no question to the authorizer is left open.
pub(super) async fn settled<T>(
    request: &AdmissionRequest,
    reader: &dyn Reader,
    mut evaluate: impl FnMut(&Answers) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut answers = Answers::default();
    loop {
        match evaluate(&answers) {
            Err(Failure::Ask(check)) => {
                let decision = reader.authorize(&check.attributes(&request.attributes.user)).await;
                answers.note(*check, decision);
            }
            other => return other,
        }
    }
}
