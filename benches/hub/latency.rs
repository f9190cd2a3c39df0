//! How long one task takes through an idle hub: until its worker starts, and until the submitter sees its result.

use std::time::Instant;

use crate::Outcome;
use crate::connection::{Connection, last_task_id};
use crate::floor::Floor;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, quantile};
use crate::roles::{PAUSE, now_ns};
use crate::socket::Socket;

pub const NAMES: [&str; 3] =
    ["latency/submit_to_start", "latency/submit_to_result_wait_ms", "latency/submit_to_result_live_socket"];

const SAMPLES: usize = 500;
const WARM_UP: usize = 50;

pub async fn run(report: &mut Report, floor: &Floor) -> Outcome {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let _worker = hub.worker("w1", 8, "done").await?;
    let mut connection = Connection::open(hub.address).await?;

    let (mut started, mut waited) = (Vec::new(), Vec::new());
    for sample in 0..WARM_UP + SAMPLES {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        let task_id = submit(&mut connection).await?;
        let answer = connection.get(&format!("/api/v1/tasks/{task_id}?wait_ms=10000")).await?;
        let took = begun.elapsed();
        let task: serde_json::Value = serde_json::from_slice(answer)?;
        let lag_ns = task["result"].as_u64().ok_or("the task left no result")?;
        if sample >= WARM_UP {
            started.push(lag_ns as f64 / 1e6);
            waited.push(took.as_secs_f64() * 1e3);
        }
    }
    // There is no way around one fsync and two trips over a socket before the start; the result takes twice that.
    let least = floor.fsync_ms + floor.echo_ms;
    let mut row = |name, times: &mut [f64], least: f64, target, peers| {
        let (half, most) = (quantile(times, 0.5), quantile(times, 0.99));
        report.row(Row {
            name,
            measured: format!("p50 {half:.2} ms, p99 {most:.2} ms"),
            target,
            floor: Some(format!(
                "{:.1} × (fsync + echo){}",
                half / least,
                if least > floor.fsync_ms * 1.9 { " twice" } else { "" }
            )),
            peers,
        });
    };
    row(
        NAMES[0],
        &mut started,
        least,
        "p50 ≤ 0.8 ms, p99 ≤ 3 ms",
        "p50/p99: BullMQ 1.2/5.5, TaskIQ 1.2/3.7, Celery 2.5/4.6, graphile 2.9/6.9, pg-boss 3.4/9.0, arq 500 (polls)",
    );
    const RESULT: &str = "BullMQ 1.9, Celery 4.1, graphile 5.7, TaskIQ 10.4";
    row(NAMES[1], &mut waited, 2.0 * least, "p50 ≤ 1.6 ms", RESULT);

    let mut socket = Socket::open(hub.address, "/api/v1/ws", "taskhub.v1").await?;
    socket
        .send(r#"{"op":"subscribe","id":1,"sub":"a","filter":{"task_type":["clock"]},"snapshot":{"limit":1}}"#)
        .await?;
    socket.until(&["subscribed"]).await?;
    let mut seen = Vec::new();
    for sample in 0..WARM_UP + SAMPLES {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        let task_id = submit(&mut connection).await?;
        socket.until(&["task.completed", &task_id]).await?;
        if sample >= WARM_UP {
            seen.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    row(NAMES[2], &mut seen, 2.0 * least, "p50 ≤ 1.6 ms", RESULT);
    Ok(())
}

async fn submit(connection: &mut Connection) -> Outcome<String> {
    let body = format!(r#"{{"task_type":"clock","payload":{}}}"#, now_ns());
    last_task_id(connection.post("/api/v1/tasks", body.as_bytes()).await?)
}
