//! The promises of the feed as a whole: a shard and its clients driven by hand, and a few rounds of the real futures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::client::Client;
use super::delivery::End;
use super::handle::{Feed, FeedOptions, LatestState, Tick};
use super::inbox::Op;
use super::outbox::OutboxLimits;
use super::sample::id;
use super::shard::{CLIENTS_AT_ONCE, Pace};
use super::world::{Board, PACE, Room, World, filter, text};
use crate::task::{Level, LogLine, Status, Task, TaskId, Timestamp};

fn take(client: &mut Client) -> Vec<String> {
    let mut out = Vec::new();
    client.take(&mut out, 1 << 30);
    out.into_iter().map(text).collect()
}

fn subscribe(world: &mut World, client: &mut Client, json: &str, max_hz: Option<f64>) {
    let done = client.ask_to_subscribe("a", filter(json), max_hz, false);
    world.until_delivered();
    assert!(done.now_or_never().is_some(), "answered in the next round");
    client.release("a");
}

#[test]
fn progress_is_paced_and_its_last_tick_sent() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    let mut slow = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    subscribe(&mut world, &mut slow, "{}", Some(2.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    world.until_delivered();
    assert_eq!((take(&mut client).len(), take(&mut slow).len()), (1, 1));

    let (mut delivered, mut slowly) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        for _ in 0..100 {
            world.tick(id(1));
        }
        world.after_ms(1);
        delivered.extend(take(&mut client));
        slowly.extend(take(&mut slow));
    }
    world.after_ms(500);
    delivered.extend(take(&mut client));
    slowly.extend(take(&mut slow));
    assert_eq!(delivered.len(), 11, "one at once, then one every 100 ms");
    assert_eq!(slowly.len(), 3, "one at once, then one every 500 ms");
    let last = format!("p {} 1 100000", id(1));
    assert_eq!((delivered.last(), slowly.last()), (Some(&last), Some(&last)));
}

/// Clients with pipes that flow, with the first transition pending.
fn pending<const CLIENTS: usize>(world: &mut World) -> [(Client, Arc<Room>); CLIENTS] {
    let clients = [(); CLIENTS].map(|()| {
        let room = Arc::new(Room { bytes: (1_000, Vec::new()).into() });
        let mut client = world.piped(OutboxLimits::default(), Some(room.clone()));
        subscribe(world, &mut client, "{}", None);
        assert!(client.flow());
        (client, room)
    });
    world.commit(id(1), Some(Status::Pending));
    world.publish();
    world.go_on(0);
    clients
}

/// A ping has a mark with it.
const HARDLY_PINGED: Pace = Pace { ping: Duration::from_secs(36_000), ..PACE };

/// The marks among these lines.
fn marks(lines: Vec<Bytes>) -> Vec<u64> {
    let mark = |line: String| line.strip_prefix(r#"{"type":"mark","rev":"#)?.strip_suffix('}')?.parse().ok();
    lines.into_iter().filter_map(|line| mark(text(line))).collect()
}

#[test]
fn a_line_without_a_mark_gets_one_within_a_second() {
    let mut world = World::with_pace(100, HARDLY_PINGED);
    let [(client, room)] = pending(&mut world);
    world.after_ms(1_000);
    assert_eq!(marks(room.lines(b"")), [1]);
    world.commit(id(2), Some(Status::Pending));
    world.publish();
    world.after_ms(100);
    assert_eq!(room.lines(b"").len(), 1, "too soon for another mark");
    world.after_ms(300);
    assert!(room.lines(b"").is_empty());
    assert!(client.stop().is_empty(), "the client's future writes when it is due");
    world.after_ms(100);
    assert!(room.lines(b"").is_empty());
    assert!(client.flow());
    world.after_ms(400);
    assert_eq!(marks(room.lines(b"")), [2]);
    world.after_ms(10_000);
    assert!(room.lines(b"").is_empty());
}

/// Regression: a scheduled mark is dropped if a later frame had one in the meantime.
#[test]
fn a_mark_that_came_with_a_later_line_is_not_said_again() {
    let mut world = World::with_pace(100, HARDLY_PINGED);
    let [(_client, room)] = pending(&mut world);
    world.after_ms(100);
    for ms in [200, 200, 200] {
        world.commit(id(2), Some(Status::Pending));
        world.publish();
        world.after_ms(ms / 2);
        world.commit(id(2), Some(Status::Scheduled));
        world.publish();
        world.after_ms(ms / 2);
    }
    let delivered = room.lines(b"");
    assert_eq!((delivered.len(), marks(delivered)), (10, vec![2, 4, 6]));
}

/// Regression: a client that was sent the first of merged tasks is marked once it was sent all of them, and not only with
/// its next ping. In the middle of them there is no rev to resume from.
#[test]
fn merged_tasks_are_marked_together() {
    let mut world = World::with_pace(3, Pace { pending_bytes_max: 1, ..HARDLY_PINGED });
    let [(_client, room)] = pending(&mut world);
    world.until_delivered();
    room.lines(b"");
    for task in 1..=5 {
        world.commit(id(task), Some(Status::Scheduled));
    }
    world.publish();
    world.after_ms(1_000);
    assert_eq!(marks(room.lines(b"")), [0u64; 0]);
    world.after_ms(400);
    assert_eq!(marks(room.lines(b"")), [6]);
}

/// Regression: a ping among merged tasks has the mark of before with it, so the scheduled one still follows.
#[test]
fn a_ping_among_merged_tasks_is_not_the_mark_that_is_owed() {
    let every_s = Pace { pending_bytes_max: 1, ping: Duration::from_secs(125), ..PACE };
    let mut world = World::with_pace(3, every_s);
    let room = Arc::new(Room { bytes: (1_000, Vec::new()).into() });
    let mut client = world.piped(OutboxLimits::default(), Some(room.clone()));
    subscribe(&mut world, &mut client, &format!(r#"{{"task_id":["{}"]}}"#, id(1)), None);
    let mut other = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut other, "{}", None);
    assert!(client.flow());
    world.after_ms(990);
    for task in 1..=5 {
        world.commit(id(task), Some(Status::Pending));
    }
    world.publish();
    world.go_on(CLIENTS_AT_ONCE);
    assert_eq!(room.lines(b"").len(), 2, "lag, and the task");
    world.now += Duration::from_millis(20);
    world.go_on(CLIENTS_AT_ONCE);
    assert_eq!(marks(room.lines(b"")), [0], "a ping");
    world.until_delivered();
    world.after_ms(400);
    assert_eq!(marks(room.lines(b"")), [5]);
}

/// Regression: what is pending for a client is delivered before its goodbye.
#[test]
fn what_is_pending_is_delivered_before_a_goodbye() {
    let mut world = World::new(100);
    let [(client, room)] = pending(&mut world);
    world.inbox.ask(Op::Dismiss(Duration::ZERO));
    world.go_on(0);
    assert_eq!((client.end(), room.lines(b"").len()), (Some(End::Dismissed), 1));
}

/// A client that was sent to out of order enters the queue at the end: else it would be sent to more often than others.
#[test]
fn a_client_that_was_sent_to_early_is_next_at_the_end() {
    let mut world = World::new(100);
    let [(_first, _), (mut second, room)] = pending(&mut world);
    let _done = second.ask_to_subscribe("b", filter("{}"), None, false);
    world.go_on(0);
    assert_eq!(room.lines(b"").len(), 1);
    world.commit(id(2), Some(Status::Pending));
    world.publish();
    world.go_on(2);
    second.release("b");
    assert!(take(&mut second).is_empty(), "its first turn was over");
    world.go_on(1);
    assert_eq!(take(&mut second).len(), 1);
}

#[test]
fn the_lag_is_that_of_the_last_client() {
    let mut world = World::new(100);
    let _clients = pending::<2>(&mut world);
    world.go_on(1);
    assert_ne!(world.inbox.lag(), Duration::ZERO);
    assert_eq!(world.inbox.handed_rev(), 0);
    world.go_on(1);
    assert_eq!((world.inbox.lag(), world.inbox.handed_rev()), (Duration::ZERO, 1));
}

/// Regression: ticks of clients that asked for a lower rate are sent, also where transitions never leave room.
#[test]
fn slow_ticks_are_sent_where_there_is_never_room() {
    let mut world = World::with_pace(100, Pace { pending_bytes_max: 1, ..PACE });
    world.commit(id(3), Some(Status::Running));
    world.publish();
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, &format!(r#"{{"task_id":["{}"]}}"#, id(3)), Some(2.0));
    let [_other] = pending(&mut world);
    assert_eq!(take(&mut client).len(), 1, "the record");
    let mut delivered = 0;
    for _ in 0..20 {
        world.now += Duration::from_millis(100);
        world.tick(id(3));
        for _ in 0..10 {
            world.commit(id(2), Some(Status::Pending));
            world.publish();
            world.go_on(CLIENTS_AT_ONCE);
        }
        delivered += take(&mut client).len();
    }
    assert_eq!(delivered, 4, "two a second");
}

#[test]
fn a_flood_of_ticks_leaves_one_note() {
    let mut world = World::new(100);
    world.commit(id(1), Some(Status::Running));
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    for _ in 0..100_000 {
        world.tick(id(1));
    }
    assert_eq!(world.inbox.take(false).unwrap().ticks.len(), 1);
}

#[test]
fn a_tick_never_overtakes_the_transition_it_follows() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    world.commit(id(1), Some(Status::Running));
    world.tick(id(1));
    world.until_delivered();
    assert_eq!(take(&mut client), [""; 0], "the board is ahead of the feed");
    world.publish();
    world.until_delivered();
    assert_eq!(take(&mut client), [format!("t {} 1 running", id(1)), format!("p {} 1 1", id(1))]);
}

#[test]
fn no_progress_follows_a_final_record() {
    let mut world = World::new(100);
    let (mut client, mut slow) = (world.client(OutboxLimits::default()), world.client(OutboxLimits::default()));
    subscribe(&mut world, &mut client, "{}", None);
    subscribe(&mut world, &mut slow, "{}", Some(1.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    for _ in 0..3 {
        world.tick(id(1));
        world.after_ms(150);
    }
    world.tick(id(1));
    world.commit(id(1), Some(Status::Completed));
    world.publish();
    world.after_ms(5_000);
    world.after_ms(100);
    for client in [&mut client, &mut slow] {
        let lines = take(client);
        assert_eq!(lines.last().unwrap(), &format!("t {} 2 completed", id(1)));
        assert_eq!(lines.iter().filter(|line| line.starts_with('p')).count(), 0, "{lines:?}");
    }
    assert_eq!(world.dirty.len(), 0, "nothing is kept of a task that ended");
    assert_eq!(world.shard.next_at(), None);
}

#[test]
fn nothing_is_left_of_a_client_that_went() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", Some(1.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    world.tick(id(1));
    world.tick(id(1));
    world.until_delivered();
    drop(client);
    world.after_ms(100);
    let mut next = world.client(OutboxLimits::default());
    world.after_ms(5_000);
    world.commit(id(1), Some(Status::Completed));
    world.publish();
    world.until_delivered();
    assert_eq!(take(&mut next), [""; 0], "the next one in this slot has no subscription");
    drop(next);
    assert!(!world.inbox.has_clients());
}

/// Waits for lines of the real feed; a minute is the bound of a test that hangs, not a time anything should take.
async fn next_lines(client: &mut Client) -> Vec<String> {
    tokio::time::timeout(Duration::from_secs(60), client.ready()).await.expect("lines come");
    take(client)
}

fn logs<const N: usize>(feed: &Feed, task_id: TaskId, lines: [LogLine; N]) {
    feed.logs(task_id, &lines.into());
}

fn log_line(seq: u64) -> LogLine {
    LogLine { seq, at: Timestamp::from_millis(0), attempt: 1, level: Level::Info, message: format!("line {seq}") }
}

#[tokio::test]
async fn the_futures_deliver_what_a_plain_thread_publishes() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions { shards: 3, ..FeedOptions::default() });
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = feed.attach(None);
        client.subscribe("all", filter("{}"), None, false).await;
        client.release("all");
        clients.push(client);
    }
    let mut watch = feed.watch(id(1));
    let publisher = feed.clone();
    let latest = board.clone();
    std::thread::spawn(move || {
        publisher.publish([latest.step(1, id(1), Some(Status::Running))].into());
        latest.tick(id(1));
        publisher.tick(id(1));
    })
    .join()
    .unwrap();
    assert_eq!(feed.published_rev(), 1);
    tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("the watch hears of it");
    for client in &mut clients {
        let mut lines = next_lines(client).await;
        while lines.len() < 2 {
            lines.extend(next_lines(client).await);
        }
        assert_eq!(lines, [format!("t {} 1 running", id(1)), format!("p {} 1 1", id(1))]);
        assert_eq!(client.mark(), 1);
    }
}

#[tokio::test]
async fn held_lines_wait_for_the_snapshot() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions { shards: 1, ..FeedOptions::default() });
    let mut client = feed.attach(None);
    client.subscribe("a", filter("{}"), None, false).await;
    client.subscribe("b", filter("{}"), None, false).await;
    client.release("a");
    feed.publish([board.step(1, id(1), Some(Status::Pending))].into());
    let mut watch = feed.attach(None);
    // What was published before an answer is looked at right after it, and told at once where so few are owed anything.
    watch.subscribe("x", filter("{}"), None, false).await;
    watch.subscribe("y", filter("{}"), None, false).await;
    assert!(client.ready().now_or_never().is_none());
    client.release("b");
    assert_eq!(next_lines(&mut client).await.len(), 1);
    assert!(client.unsubscribe("a") && !client.unsubscribe("a"));
}

#[tokio::test]
async fn logs_go_to_those_who_may_read_them() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions::default());
    board.step(1, id(1), Some(Status::Running));
    let by_id = filter(&format!(r#"{{"task_id":["{}"]}}"#, id(1)));
    let wrong_type = filter(&format!(r#"{{"task_id":["{}"],"task_type":["other"]}}"#, id(1)));
    let of_another = filter(&format!(r#"{{"task_id":["{}"],"user_id":["ann"]}}"#, id(1)));
    let (mut reader, mut other, mut stranger) = (feed.attach(None), feed.attach(None), feed.attach(None));
    reader.subscribe("a", by_id.clone(), None, true).await;
    reader.subscribe("b", by_id.clone(), None, true).await;
    other.subscribe("a", wrong_type, None, true).await;
    stranger.subscribe("a", of_another, None, true).await;
    for client in [&mut reader, &mut other, &mut stranger] {
        client.release("a");
    }
    logs(&feed, id(1), [log_line(1), log_line(2)]);
    logs(&feed, id(1), [log_line(3)]);
    logs(&feed, id(2), [log_line(1)]);
    reader.logs_known(id(1), 2);
    reader.release("b");
    // Written before the hub was read, and told only now.
    logs(&feed, id(1), [log_line(2)]);
    let lines = next_lines(&mut reader).await;
    assert_eq!(lines.len(), 1, "once, though two subscriptions ask: {lines:?}");
    assert!(lines[0].starts_with(&format!(r#"{{"type":"log","task_id":"{}","lines":[{{"seq":3,"#, id(1))), "{lines:?}");
    assert!(other.ready().now_or_never().is_none() && stranger.ready().now_or_never().is_none());
    reader.unsubscribe("a");
    drop(reader);
    logs(&feed, id(1), [log_line(4)]);
}

/// A board that cannot be asked about one task.
struct Trap;

impl LatestState for Trap {
    fn task(&self, task_id: TaskId) -> Option<Arc<Task>> {
        assert_ne!(task_id, id(13), "this is the failure that the test is about");
        None
    }

    fn progress(&self, _: TaskId) -> Option<Tick> {
        None
    }
}

#[tokio::test]
async fn a_shard_that_fails_sends_its_clients_away_and_goes_on() {
    let feed = Feed::start(Arc::new(Trap), Arc::new(()), 0, FeedOptions { shards: 1, ..FeedOptions::default() });
    let mut client = feed.attach(None);
    client.subscribe("a", filter("{}"), None, false).await;
    client.release("a");
    feed.tick(id(13));
    tokio::time::timeout(Duration::from_secs(60), client.ready()).await.expect("it ends");
    assert_eq!(client.end(), Some(End::Lost));
    drop(client);
    let mut next = feed.attach(None);
    next.subscribe("a", filter("{}"), None, false).await;
    next.release("a");
    feed.publish([Board::default().step(1, id(1), Some(Status::Pending))].into());
    assert_eq!(next_lines(&mut next).await.len(), 1);
    assert_eq!((next.mark(), next.end()), (1, None));
}

/// Regression: a shard that replaces a failed one has no marks scheduled for the clients of the failed one.
#[test]
fn a_shard_that_replaces_a_failed_one_has_no_marks_scheduled() {
    let mut world = World::new(100);
    let [(client, room)] = pending(&mut world);
    world.until_delivered();
    assert_eq!(room.lines(b"").len(), 1, "without a mark");
    world.shard = world.shard.anew(1);
    assert_eq!(client.end(), Some(End::Lost));
    world.after_ms(1_000);
    let [(_next, room)] = pending(&mut world);
    world.after_ms(1_000);
    assert_eq!(marks(room.lines(b"")), [2]);
}

#[tokio::test]
async fn a_feed_that_stopped_answers() {
    let feed = Feed::start(Arc::<Board>::default(), Arc::new(()), 0, FeedOptions::default());
    let mut client = feed.attach(None);
    drop(feed);
    client.subscribe("a", filter("{}"), None, false).await;
}
