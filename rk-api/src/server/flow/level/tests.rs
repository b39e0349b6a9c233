use super::*;

const PATIENCE: Duration = Duration::from_secs(15);

/// Seats of a level, waited for.
async fn take(level: &Arc<Level>, flow: u64, seats: usize) -> Result<Seat, Refused> {
    match level.ask(flow, seats)? {
        Taken::Seat(seat) => Ok(seat),
        Taken::Place(place) => place.wait(PATIENCE).await,
    }
}

/// Asks for seats that are not to be had yet.
fn place(level: &Arc<Level>, flow: u64, seats: usize) -> Place {
    match level.ask(flow, seats).ok().unwrap() {
        Taken::Place(place) => place,
        Taken::Seat(_) => panic!("there is no need to wait"),
    }
}

#[tokio::test(start_paused = true)]
async fn queues_are_served_in_turn() {
    let level = Level::new(1, Queuing { queues: 8, hand: 1, length: 3 });
    let first = take(&level, 0, 1).await.unwrap();
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    // One flow asks for much before the other asks for little.
    for (flow, name) in [(1, "greedy"), (1, "greedy"), (1, "greedy"), (2, "modest")] {
        let (level, told) = (Arc::clone(&level), told.clone());
        tokio::spawn(async move {
            let seat = take(&level, flow, 1).await;
            told.send((name, seat.is_ok())).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert!(take(&level, 1, 1).await.is_err(), "its queue is full");
    drop((first, told));
    let mut served = Vec::new();
    while let Some((name, seated)) = order.recv().await {
        assert!(seated);
        served.push(name);
    }
    assert_eq!(served, ["greedy", "modest", "greedy", "greedy"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let level = Level::new(1, Queuing { queues: 1, hand: 1, length: 10 });
    let seat = take(&level, 0, 1).await.unwrap();
    let waited = tokio::time::Instant::now();
    assert_eq!(take(&level, 0, 1).await.err(), Some(Refused::TimeOut));
    assert!(waited.elapsed() >= PATIENCE);
    // The one that gave up does not get the seat.
    let next = tokio::spawn({
        let level = Arc::clone(&level);
        async move { take(&level, 0, 1).await.is_ok() }
    });
    tokio::task::yield_now().await;
    drop(seat);
    assert!(next.await.unwrap());
    // A level without queues any more tells those who wait.
    let seat = take(&level, 0, 1).await.unwrap();
    let waiting = tokio::spawn({
        let level = Arc::clone(&level);
        async move { take(&level, 0, 1).await.is_ok() }
    });
    tokio::task::yield_now().await;
    level.configure(1, Queuing::REJECT);
    assert!(!waiting.await.unwrap());
    drop(seat);
    assert!(take(&level, 0, 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_keeps_nobody_waiting() {
    let level = Level::new(10, Queuing { queues: 1, hand: 1, length: 2 });
    let held = take(&level, 0, 5).await.unwrap();
    let (wide, mut narrow) = (place(&level, 0, 10), place(&level, 0, 1));
    // A full queue is no reason to refuse anybody while seats are free.
    let gone = place(&level, 0, 1);
    assert_eq!(level.demand().most, 17.0);
    drop(gone);
    drop(wide);
    let served = tokio::time::timeout(Duration::from_millis(1), &mut narrow.told).await.unwrap().unwrap();
    drop(held);
    let all = take(&level, 0, 9).await.unwrap();
    let waiting = [place(&level, 0, 1), place(&level, 0, 1)];
    assert_eq!(level.ask(0, 1).err(), Some(Refused::QueueFull));
    // Wherever in the queue they were.
    let [first, second] = waiting;
    drop(second);
    drop(place(&level, 0, 1));
    drop((first, served, all));
    // Nothing of them is wanted still, when nobody asks any more.
    level.demand();
    assert_eq!(level.demand().most, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_level_without_seats_holds_those_who_ask() {
    let level = Level::new(0, Queuing { queues: 1, hand: 1, length: 1 });
    assert_eq!(take(&level, 0, 1).await.err(), Some(Refused::TimeOut));
    let waiting = place(&level, 0, 1);
    assert_eq!(level.ask(0, 1).err(), Some(Refused::QueueFull));
    level.set_seats(1);
    assert!(waiting.wait(PATIENCE).await.is_ok());
    // One that has no queues either is to find out that it needs some.
    let level = Level::rejecting(0);
    let _seat = take(&level, 0, 1).await.unwrap();
    assert_eq!((level.ask(0, 1).err(), level.demand().most), (Some(Refused::ConcurrencyLimit), 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_wants_more_seats_than_there_are_is_alone() {
    let level = Level::rejecting(2);
    let seat = take(&level, 0, 5).await.unwrap();
    assert_eq!(take(&level, 0, 1).await.err(), Some(Refused::ConcurrencyLimit));
    drop(seat);
    let seat = take(&level, 0, 1).await.unwrap();
    assert_eq!(take(&level, 0, 5).await.err(), Some(Refused::ConcurrencyLimit));
    drop(seat);
    assert!(take(&level, 0, 5).await.is_ok());
}
