//! What clients asked and were told.

use std::sync::Arc;

use parking_lot::Mutex;
use rk_store::{Error, Txn, TxnResponse, is_read_only};

use super::{kv::Call, linear::Operation, trace::Trace};

/// Records transactions. Clones record in the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts begins and ends: what happens at one moment of virtual time has an order all the same.
    clock: u64,
    operations: Vec<Operation<Call>>,
}

/// Whether a write that failed so may have taken effect.
fn may_have_happened(error: &Error) -> bool {
    !matches!(error, Error::NoLeader | Error::TooManyRequests | Error::NoSpace(_))
}

impl History {
    /// Records a transaction that `run` does; `txn` says it in the words of the checker's model.
    pub(crate) async fn record(
        &self,
        client: u64,
        txn: Txn,
        trace: &Trace,
        run: impl Future<Output = Result<TxnResponse, Error>>,
    ) -> Option<TxnResponse> {
        let begin = self.tick();
        let answer = run.await;
        let end = self.tick();
        let (answer, end) = match answer {
            Ok(answer) => (Some(answer), Some(end)),
            Err(error) => {
                trace.tell(|| format!("client {client}: {error}"));
                if is_read_only(&txn) || !may_have_happened(&error) {
                    return None;
                }
                (None, None)
            }
        };
        let operation = Operation { client, call: Call { txn, answer }, begin, end };
        trace.tell(|| format!("client {client}: {:?}", operation.call));
        let answer = operation.call.answer.clone();
        self.state.lock().operations.push(operation);
        answer
    }

    fn tick(&self) -> u64 {
        let mut state = self.state.lock();
        state.clock += 1;
        state.clock
    }

    /// All that was recorded.
    pub(crate) fn operations(&self) -> Vec<Operation<Call>> {
        self.state.lock().operations.clone()
    }
}
