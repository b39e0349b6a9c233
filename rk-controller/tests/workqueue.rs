//! The workqueue: on a paused clock, and against a naive model under random operations.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use rk_controller::workqueue::{Item, NoMetrics, Priority, RateLimiter, WorkQueue};
use tokio::time::Instant;

fn queue() -> WorkQueue<u8> {
    WorkQueue::new(RateLimiter::default(), Arc::new(NoMetrics))
}

#[tokio::test(start_paused = true)]
async fn a_key_is_there_once_and_comes_back_once_after_its_worker() {
    let queue = queue();
    queue.add(1);
    queue.add(1);
    let item = queue.next().await.unwrap();
    queue.add(1);
    queue.add(1);
    assert!(queue.try_next().is_none(), "one worker at a time has it");
    drop(item);
    assert_eq!(*queue.next().await.unwrap(), 1);
    assert!(queue.try_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn higher_priorities_go_first_and_a_key_keeps_the_highest() {
    let queue = queue();
    queue.add_with(1, Priority::LOW);
    queue.add_with(2, Priority::LOW);
    queue.add(3);
    queue.add(2);
    let order: Vec<u8> = std::iter::from_fn(|| queue.try_next().map(|item| *item)).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn delayed_and_failed_keys_come_when_their_time_is_over() {
    let queue = queue();
    let start = Instant::now();
    queue.add_after(1, Duration::from_secs(10));
    queue.add_after(1, Duration::from_secs(3));
    queue.add_after(1, Duration::from_secs(7));
    drop(queue.next().await.unwrap());
    assert_eq!(start.elapsed().as_secs(), 3, "the earliest wish holds");
    assert!(queue.try_next().is_none());

    let delays: Vec<_> = (0..4).map(|_| queue.retry(2).as_millis()).collect();
    assert_eq!((delays, queue.failures(&2)), (vec![5, 10, 20, 40], 4));
    let start = Instant::now();
    drop(queue.next().await.unwrap());
    assert_eq!(start.elapsed().as_millis(), 5);
    queue.forget(&2);
    assert_eq!(queue.retry(2).as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_wake_up_reaches_all_workers_and_a_drain_waits_for_them() {
    let queue = queue();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while let Some(_item) = queue.next().await {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    done += 1;
                }
                done
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let start = Instant::now();
    (0..8).for_each(|key| queue.add(key));
    queue.drain().await;
    assert_eq!(start.elapsed().as_secs(), 2, "eight keys, four at a time");
    queue.add(9);
    let mut done = 0;
    for worker in workers {
        done += worker.await.unwrap();
    }
    assert_eq!(done, 8, "a closed queue takes nothing");
}

/// What a user does.
#[derive(Debug, Clone)]
enum Op {
    Add(u8, i32),
    AddAfter(u8, u64),
    Take,
    Finish(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..6_u8, -1..2_i32).prop_map(|(key, priority)| Op::Add(key, priority)),
        (0..6_u8, 1..50_u64).prop_map(|(key, delay)| Op::AddAfter(key, delay)),
        Just(Op::Take),
        (0..4_usize).prop_map(Op::Finish),
        (1..40_u64).prop_map(Op::Pass),
    ]
}

/// The queue as one would write it with lists.
#[derive(Default)]
struct Model {
    /// Keys that are wanted: priority, and place in the queue.
    wanted: BTreeMap<u8, (i32, u64)>,
    delayed: BTreeMap<u8, (u64, u64)>,
    processing: Vec<u8>,
    now: u64,
    counter: u64,
}

impl Model {
    fn add(&mut self, key: u8, priority: i32) {
        self.counter += 1;
        let entry = self.wanted.entry(key).or_insert((priority, self.counter));
        entry.0 = entry.0.max(priority);
    }

    fn ripen(&mut self) {
        let mut due: Vec<_> = self.delayed.iter().filter(|(_, at)| at.0 <= self.now).map(|(k, at)| (*at, *k)).collect();
        due.sort_unstable();
        for (_, key) in due {
            self.delayed.remove(&key);
            self.add(key, 0);
        }
    }

    fn take(&mut self) -> Option<u8> {
        self.ripen();
        let free = self.wanted.iter().filter(|(key, _)| !self.processing.contains(key));
        let (&key, _) = free.min_by_key(|(_, (priority, place))| (-priority, *place))?;
        self.wanted.remove(&key);
        self.processing.push(key);
        Some(key)
    }

    fn finish(&mut self, index: usize) {
        let key = self.processing.remove(index);
        self.counter += 1;
        if let Some(entry) = self.wanted.get_mut(&key) {
            entry.1 = self.counter;
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (queue, mut model) = (queue(), Model::default());
            let mut items: Vec<Item<u8>> = Vec::new();
            for op in ops {
                match op {
                    Op::Add(key, priority) => {
                        queue.add_with(key, Priority(priority));
                        model.add(key, priority);
                    }
                    Op::AddAfter(key, delay) => {
                        queue.add_after(key, Duration::from_millis(delay));
                        model.counter += 1;
                        let at = (model.now + delay, model.counter);
                        let known = model.delayed.entry(key).or_insert(at);
                        if at.0 < known.0 {
                            *known = at;
                        }
                    }
                    Op::Take => {
                        let item = queue.try_next();
                        assert_eq!(item.as_deref().copied(), model.take());
                        items.extend(item);
                    }
                    Op::Finish(index) if index < items.len() => {
                        drop(items.remove(index));
                        model.finish(index);
                    }
                    Op::Finish(_) => {}
                    Op::Pass(time) => {
                        tokio::time::advance(Duration::from_millis(time)).await;
                        model.now += time;
                    }
                }
            }
        });
    }
}
