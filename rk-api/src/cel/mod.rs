//! CEL, the Common Expression Language, as Kubernetes has it
//! (<https://kubernetes.io/docs/reference/using-api/cel/>): rules of custom resources, admission policies, match
//! conditions.
//!
//! ```text
//! text -> parse (the crate `cel`) -> check (types, overloads) -> code -> evaluate (costs, limits) -> value
//! ```
//!
//! The grammar is the crate's. Its interpreter is not used: it knows no declared types, so a rule that can't ever work
//! would be found only once an object comes by; nothing bounds what an evaluation costs; and it copies what it
//! evaluates. Here an expression is checked against the schema when it is written, counts its cost in cel-go's units,
//! and reads the object's tree in place.
//!
//! `types` and `value` are what there is, `library` the functions, `schema` the types of custom resources, `device` those
//! of devices, `estimate` what an expression may cost at most.

mod check;
pub mod device;
mod estimate;
mod eval;
pub(crate) mod library;
mod parse;
#[cfg(feature = "server")]
pub(crate) mod schema;
pub(crate) mod types;
mod value;

use serde_json::Value;

pub(crate) use estimate::estimate;
pub(crate) use eval::{Meter, Scope};
pub(crate) use library::authorizer::Answers;
pub use parse::CompileError;
#[cfg(feature = "server")]
pub(crate) use parse::{MAX_DEPTH, batch};
#[cfg(feature = "server")]
pub(crate) use types::ListType;
pub(crate) use types::Type;
pub(crate) use value::{Failure, Other, Val};

/// What one expression may cost (apiserver's `PerCallLimit`).
pub(crate) const CALL_LIMIT: u64 = 1_000_000;

/// The nanoseconds that a text says as Go's `time.ParseDuration` reads it; `None` if it says none.
pub(crate) fn go_duration(text: &str) -> Option<i64> {
    library::time::duration(text).ok()
}

/// What an expression may name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Environment {
    /// Variables by name, which may be qualified, with their types.
    pub(crate) variables: Vec<(String, Type)>,
    /// Whether it may make objects of the types `Object` and `JSONPatch`.
    pub(crate) objects: bool,
}

impl Environment {
    /// Adds a variable; it is evaluated to the value at its place.
    pub(crate) fn declare(&mut self, name: impl Into<String>, kind: Type) {
        self.variables.push((name.into(), kind));
    }
}

/// An expression that was parsed and checked.
///
/// ```
/// use rk_api::cel::Program;
/// use serde_json::json;
///
/// let program = Program::compile("self.replicas <= 5 && self.name.startsWith('web')", &["self"])?;
/// assert_eq!(program.run(&[&json!({"replicas": 3, "name": "web-1"})]), Ok(json!(true)));
/// assert_eq!(program.run(&[&json!({"name": "web-1"})]), Err("no such key: replicas".to_owned()));
/// let error = Program::compile("'a' + 1 == 'a1'", &[]).unwrap_err();
/// assert!(error.to_string().contains("found no matching overload for '_+_' applied to '(string, int)'"));
/// # Ok::<(), rk_api::cel::CompileError>(())
/// ```
#[derive(Debug)]
pub struct Program {
    code: check::Code,
    kind: Type,
    depth: usize,
}

impl Program {
    /// Compiles an expression over variables of any type.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let mut environment = Environment::default();
        for name in variables {
            environment.declare(*name, Type::Dyn);
        }
        Self::checked(text, &environment)
    }

    /// Compiles an expression in an environment.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub(crate) fn checked(text: &str, environment: &Environment) -> Result<Self, CompileError> {
        parse::parse(text, |tree, source| {
            let (code, kind) = check::check(environment, text, tree, source)?;
            Ok(Self { code, kind, depth: parse::depth(tree) })
        })
    }

    /// The type of its value.
    pub(crate) fn kind(&self) -> &Type {
        &self.kind
    }

    /// How deep it is nested.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether it reads a variable.
    pub(crate) fn uses(&self, variable: usize) -> bool {
        self.code.uses(variable)
    }

    /// Evaluates it over the values of its variables, in the order in which they were declared.
    ///
    /// # Errors
    /// Why it has no value: it fails, costs more than Kubernetes allows, or its value has no form in JSON.
    pub fn run(&self, values: &[&Value]) -> Result<Value, String> {
        let answers = Answers::default();
        let mut meter = Meter::new(CALL_LIMIT, &answers);
        let values = values.iter().map(|value| Val::of(value, &Type::Dyn)).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(|failure| failure.to_string())?;
        let value = self.evaluate(&*values, &mut meter).and_then(|value| value.to_json());
        value.map_err(|failure| failure.to_string())
    }

    /// Evaluates it over the values of a scope.
    ///
    /// # Errors
    /// Why it has no value.
    pub(crate) fn evaluate<'a, S: Scope<'a> + ?Sized>(
        &'a self,
        scope: &S,
        meter: &mut Meter<'_>,
    ) -> Result<Val<'a>, Failure> {
        eval::evaluate(&self.code, &scope, meter)
    }
}

#[cfg(test)]
mod tests;
