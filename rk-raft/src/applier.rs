//! The task that applies committed entries to the replica, in order, and answers whoever proposed them here.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use rk_store::{
    Command, Error, Machine, Outcome, Replica, SLOW_APPLY,
    planted::{Bug, is_planted},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
    time::Instant,
};

use crate::{
    MemberId,
    log::Point,
    node::Event,
    proposals::{Reply, answer},
    reads::LeaseCheck,
    shared::{Shared, Space},
};

/// How long a full disk is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// Commands that are answered together, so that a connection writes its clients' answers at once.
const TOGETHER: usize = 256;

/// Commands from which on they are applied beside the thread's other tasks.
const MANY: usize = 64;

/// A committed command.
pub(crate) struct Item {
    pub index: u64,
    pub command: Encoded,
    /// Who proposed it here.
    pub reply: Option<Reply<Outcome>>,
}

/// A command, or its bytes if it comes from elsewhere.
pub(crate) enum Encoded {
    Plain(Command),
    Bytes(Bytes),
}

/// What the applier is to do, in order.
pub(crate) enum Apply {
    /// Apply commands; the last entry has this index.
    Entries(Vec<Item>, u64),
    /// Answer reads that need no more than what was applied before.
    Reads(Vec<Reply<()>>),
    /// Tell the member that it may look at these leases now.
    Checks(Vec<LeaseCheck>),
    /// Give the member the state as it is now, which is that of this point, for a member or for itself.
    Snapshot(Option<MemberId>, Point),
    /// Go on from another state, behind the entry of this index.
    Install(Box<Machine>, u64),
}

/// Works until the member stops, or the engine fails, which is told.
pub(crate) async fn run(
    replica: Arc<Replica>,
    mut queue: mpsc::UnboundedReceiver<Apply>,
    events: mpsc::UnboundedSender<Event>,
    shared: Arc<Shared>,
) {
    let mut twice = is_planted(Bug::ApplyTwice);
    while let Some(work) = queue.recv().await {
        let event = match work {
            Apply::Entries(items, index) => match beside(items.len(), || apply(&replica, &shared, items, &mut twice)) {
                Ok(()) => {
                    shared.set_applied(index);
                    make_room(&replica, &shared).await.err().map(Event::Failed)
                }
                Err(error) => Some(Event::Failed(error)),
            },
            Apply::Reads(replies) => {
                replies.into_iter().for_each(|reply| answer(reply, Ok(())));
                None
            }
            Apply::Checks(checks) => Some(Event::Reached(checks)),
            Apply::Snapshot(to, point) => {
                Some(Event::Snapshot { to, point: Box::new(point), state: replica.snapshot() })
            }
            Apply::Install(machine, index) => {
                replica.restore(*machine);
                shared.set_applied(index);
                None
            }
        };
        let failed = matches!(event, Some(Event::Failed(_)));
        if event.is_some_and(|event| events.send(event).is_err()) || failed {
            return;
        }
    }
}

/// Does work on so many commands. If they are many and there are threads for it, the other tasks go on meanwhile.
fn beside<T>(commands: usize, work: impl FnOnce() -> T) -> T {
    if commands >= MANY && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Has the engine ready for more, as soon as there is space.
async fn make_room(replica: &Replica, shared: &Shared) -> Result<(), Error> {
    loop {
        let engine = replica.machine().engine().clone();
        match engine.make_room().map_err(Error::from) {
            Err(Error::NoSpace(reason)) => {
                shared.set_no_space(Space::Engine, Some(reason));
                tokio::time::sleep(RETRY).await;
            }
            result => {
                shared.set_no_space(Space::Engine, None);
                return result;
            }
        }
    }
}

fn apply(replica: &Replica, shared: &Shared, items: Vec<Item>, twice: &mut bool) -> Result<(), Error> {
    let begin = Instant::now();
    let mut answers = Vec::new();
    for Item { index, command, reply } in items {
        let command = match command {
            Encoded::Plain(command) => command,
            Encoded::Bytes(bytes) => {
                Command::decode(bytes).map_err(|error| Error::Unavailable(format!("an entry of the log: {error}")))?
            }
        };
        let result = replica.apply(&command);
        if std::mem::take(twice) {
            replica.apply(&command)?;
        }
        if let Err(error @ Error::Unavailable(_)) = result {
            return Err(error);
        }
        shared.set_applied(index);
        answers.extend(reply.map(|reply| (reply, result)));
        if answers.len() == TOGETHER {
            answers.drain(..).for_each(|(reply, result)| answer(reply, result));
        }
    }
    answers.into_iter().for_each(|(reply, result)| answer(reply, result));
    if begin.elapsed() > SLOW_APPLY {
        shared.slow_applies.fetch_add(1, Relaxed);
    }
    Ok(())
}
