//! What runs beside the scheduling cycles: plugins that bind pods, in tokio's time that stands still until nobody has anything to do.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rk_api::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, WatchOptions, status,
};
use tokio::{
    runtime::Runtime,
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{engine::Placement, framework::Status};

/// A request that the simulated API has not answered yet.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Arc<Object>, Error>>,
}

/// What has come up for the simulation.
#[derive(Default)]
struct News {
    asked: Mutex<Vec<Asked>>,
    /// Tasks that can go on, by number.
    woken: Mutex<Vec<u64>>,
    told: Notify,
}

/// The way of plugins to the simulated API.
struct Line(Arc<News>);

fn not_simulated() -> Error {
    Error::Api(Box::new(status::method_not_allowed()))
}

#[async_trait]
impl Client for Line {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.asked.lock().push(Asked { request, answer });
        self.0.told.notify_one();
        answered.await.unwrap_or_else(|_| Err(Error::Transport("the simulation has ended".to_owned())))
    }

    async fn list(&self, _: &Resource, _: &str, _: ListOptions) -> Result<List, Error> {
        Err(not_simulated())
    }

    async fn watch(&self, _: &Resource, _: &str, _: WatchOptions) -> Result<EventStream, Error> {
        Err(not_simulated())
    }

    async fn delete_collection(&self, _: &Resource, _: &str, _: DeleteOptions, _: ListOptions) -> Result<(), Error> {
        Err(not_simulated())
    }
}

struct Ring {
    number: u64,
    news: Arc<News>,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.news.woken.lock().push(self.number);
        self.news.told.notify_one();
    }
}

type Task = Pin<Box<dyn Future<Output = (Placement, Status)>>>;

/// Bindings on their way, and the time that passes for them.
pub(super) struct Tasks<'a> {
    runtime: &'a Runtime,
    news: Arc<News>,
    tasks: HashMap<u64, Task>,
    added: u64,
}

/// The runtime of a simulation. Its clock stands still, and goes on to the next timer only when nothing else is left to do.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
}

impl<'a> Tasks<'a> {
    pub(super) fn new(runtime: &'a Runtime) -> Self {
        Self { runtime, news: Arc::default(), tasks: HashMap::new(), added: 0 }
    }

    /// The API, for plugins.
    pub(super) fn client(&self) -> Arc<dyn Client> {
        Arc::new(Line(Arc::clone(&self.news)))
    }

    /// Whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Begins a binding.
    pub(super) fn spawn(&mut self, task: impl Future<Output = (Placement, Status)> + 'static) {
        self.added += 1;
        self.tasks.insert(self.added, Box::pin(task));
        self.news.woken.lock().push(self.added);
    }

    /// Requests since the last call, in their order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.news.asked.lock())
    }

    /// Lets those go on that can, until they wait for something; answers which have ended.
    pub(super) fn poll(&mut self) -> Vec<(Placement, Status)> {
        let woken = std::mem::take(&mut *self.news.woken.lock());
        let mut ended = Vec::new();
        for number in woken {
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            let waker = Waker::from(Arc::new(Ring { number, news: Arc::clone(&self.news) }));
            if let Poll::Ready(outcome) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.tasks.remove(&number);
                ended.push(outcome);
            }
        }
        ended
    }

    /// Lets time pass until `until`, or until there is something to do before that.
    pub(super) fn pass(&self, until: Instant) {
        self.runtime.block_on(async {
            // What plugins have spawned comes first.
            tokio::task::yield_now().await;
            let mut over = pin!(tokio::time::sleep_until(until));
            loop {
                tokio::select! {
                    biased;
                    // It may tell of news that are not new any more.
                    () = self.news.told.notified() => if self.has_news() { break },
                    () = &mut over => break,
                }
            }
        });
    }

    /// Whether there is something to do.
    pub(super) fn has_news(&self) -> bool {
        !self.news.woken.lock().is_empty() || !self.news.asked.lock().is_empty()
    }

    /// The time for tasks, which runs up to a millisecond ahead of the simulation's.
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }
}
