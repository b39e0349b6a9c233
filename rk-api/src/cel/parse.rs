//! Text to a tree, by the parser of the crate `cel`.
//!
//! A parser and what frees its trees recurse as deep as the text is nested, and the text is anybody's. So the text is
//! bounded, and the work is done on a stack that is large enough for the deepest of them: on a thread of its own, or on one for
//! all expressions of a [`batch`].

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::LazyLock,
    thread,
};

use cel::{Env, IdedExpr, common::ast::SourceInfo};

/// Characters of an expression (cel-go's default).
const MAX_TEXT: usize = 100_000;
/// Signs of operators, selections and brackets: each may be a level of the tree.
const MAX_SIGNS: usize = 10_000;
/// Levels of brackets (cel-go's default).
pub(crate) const MAX_DEPTH: u16 = 250;
/// Address space, of which only what is used costs memory: 20 KiB for each level there may be.
const STACK: usize = 256 << 20;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct CompileError(Vec<String>);

impl CompileError {
    pub(super) fn plain(why: impl Into<String>) -> Self {
        Self(vec![why.into()])
    }
}

/// What is wrong at a place: a line from 1 on, and a column from 1 on.
pub(super) struct Issue {
    pub(super) place: (usize, usize),
    pub(super) message: String,
}

/// Issues in the words of cel-go.
pub(super) fn report(text: &str, mut issues: Vec<Issue>) -> CompileError {
    issues.sort_by_key(|issue| issue.place);
    let shown = issues.iter().map(|Issue { place: (line, column), message }| {
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let dots = ".".repeat((*column).saturating_sub(1).min(source.chars().count()));
        format!("ERROR: <input>:{line}:{column}: {message}\n | {source}\n | {dots}^")
    });
    CompileError(shown.collect())
}

/// The line and column of a character.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.chars().take(offset);
    before.fold((1, 1), |(line, column), c| if c == '\n' { (line + 1, 1) } else { (line, column + 1) })
}

/// No macros: the checker knows what `all` and `map` are.
static SYNTAX: LazyLock<Env> = LazyLock::new(Env::default);

/// Parses a text and hands its tree to `then`, on a deep stack.
pub(super) fn parse<T: Send>(
    text: &str,
    then: impl FnOnce(&IdedExpr, &SourceInfo) -> Result<T, CompileError> + Send,
) -> Result<T, CompileError> {
    if text.chars().count() > MAX_TEXT {
        return Err(CompileError::plain(format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_TEXT}",
            text.chars().count()
        )));
    }
    if text.bytes().filter(|byte| b".[+-*/%<>=&|!?".contains(byte)).count() > MAX_SIGNS {
        return Err(CompileError::plain(format!("expression has more than {MAX_SIGNS} operators")));
    }
    let work = || {
        let parser = SYNTAX.parser().max_recursion_depth(MAX_DEPTH);
        match parser.parse_with_source_info(text) {
            Ok((tree, source)) if depth(&tree) <= usize::from(MAX_DEPTH) => then(&tree, &source),
            Ok(_) => Err(too_deep()),
            Err(errors) => {
                let issues = errors.errors.into_iter().map(|error| Issue {
                    place: (usize::try_from(error.pos.0).unwrap_or(1), usize::try_from(error.pos.1).unwrap_or(1)),
                    message: error.msg,
                });
                let issues: Vec<_> = issues.collect();
                // How the parser says that it gave up on the depth.
                let gave_up = issues.iter().all(|issue| issue.message == "UNKNOWN");
                Err(if gave_up { too_deep() } else { report(text, issues) })
            }
        }
    };
    // One that the parser fails on spoils no other of its batch.
    let guarded = || {
        let failed = |_| Err(CompileError::plain("the parser failed on this expression"));
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(failed)
    };
    deep(guarded).unwrap_or_else(|error| {
        Err(CompileError::plain(format!("can't start a thread to parse the expression: {error}")))
    })
}

thread_local! {
    /// Whether this thread has the deep stack.
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Does work that compiles several expressions, with one deep stack for all of them.
pub(crate) fn batch<T: Send>(work: impl Fn() -> T + Send + Sync) -> T {
    // Without the thread each expression says that it could not be parsed.
    deep(&work).unwrap_or_else(|_| work())
}

/// Does work on a deep stack: this thread's, or that of a new one.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    if DEEP.get() {
        return Ok(work());
    }
    let work = || {
        DEEP.set(true);
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn too_deep() -> CompileError {
    CompileError::plain(format!("expression recursion limit exceeded: {MAX_DEPTH}"))
}

/// Levels of a tree.
pub(super) fn depth(tree: &IdedExpr) -> usize {
    use cel::common::ast::{EntryExpr, Expr};
    let entry = |entry: &cel::common::ast::IdedEntryExpr| match &entry.expr {
        EntryExpr::StructField(field) => depth(&field.value),
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
    };
    1 + match &tree.expr {
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).map(depth).max(),
        Expr::List(list) => list.elements.iter().map(depth).max(),
        Expr::Map(map) => map.entries.iter().map(entry).max(),
        Expr::Struct(fields) => fields.entries.iter().map(entry).max(),
        Expr::Select(select) => Some(depth(&select.operand)),
        // Those of macros, which are not expanded; and leaves.
        Expr::Comprehension(_) | Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => None,
    }
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_one_thread() {
        let parsed_by = || parse("1 + 1", |_, _| Ok(thread::current().id())).unwrap();
        assert_ne!(parsed_by(), parsed_by());
        let (outside, inside, nested) = batch(|| (thread::current().id(), parsed_by(), batch(parsed_by)));
        assert_eq!((outside, outside), (inside, nested));
        assert_ne!(outside, thread::current().id());
    }
}
