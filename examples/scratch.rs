use std::time::Instant;
use taskhub::engine::{Accepts, Report};
use taskhub::hub::{Hub, HubOptions, Principal, Pushed};
use taskhub::store::SqliteStore;
use taskhub::task::{Json, Name, NewTask, PatternSet};

fn cpu() -> f64 {
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let t = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    t(usage.ru_utime) + t(usage.ru_stime)
}

#[tokio::main]
async fn main() {
    let n: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir_in(".").unwrap();
    let store = SqliteStore::open(dir.path(), Default::default()).unwrap();
    let hub = Hub::start(Box::new(store), HubOptions::default()).unwrap();
    let who = Principal::default();
    let payload = Json::parse(&format!("\"{}\"", "x".repeat(198))).unwrap();
    let (c0, t0) = (cpu(), Instant::now());
    for _ in 0..n / 100 {
        let tasks = (0..100).map(|_| NewTask { payload: Some(payload.clone()), ..NewTask::new("noop") }).collect();
        hub.submit_all(&who, tasks, None).await.unwrap();
    }
    println!(
        "submit: {:.1} µs cpu, {:.1} µs wall a task",
        (cpu() - c0) * 1e6 / n as f64,
        t0.elapsed().as_secs_f64() * 1e6 / n as f64
    );
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let rss: usize = statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096;
    println!("rss {} MB, {} bytes a task", rss >> 20, rss / n);
    let (c0, t0) = (cpu(), Instant::now());
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    let mut welcome = hub.attach_worker(Name::new("w"), accepts, 200, vec![]).await.unwrap();
    let (mut done, mut out) = (0, Vec::new());
    while done < n {
        welcome.link.next(&mut out).await.unwrap();
        for push in out.drain(..) {
            match push {
                Pushed::Run(given) => welcome.link.report(
                    given.task.task_id,
                    given.task.attempt,
                    Report::Complete { result: Json::null() },
                ),
                Pushed::Ack { .. } => done += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    println!(
        "run: {:.1} µs cpu, {:.1} µs wall a task",
        (cpu() - c0) * 1e6 / n as f64,
        t0.elapsed().as_secs_f64() * 1e6 / n as f64
    );
    hub.stop().await;
}
