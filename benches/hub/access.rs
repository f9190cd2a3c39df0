//! What it costs to know who calls, and to keep what each may see apart: a hub that asks for tokens beside one that does
//! not. And whether time tells of a task that a caller may not see.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::try_join_all;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Outcome;
use crate::connection::Connection;
use crate::crowd::{Crowd, Drive};
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, median};
use crate::roles::now_ns;
use crate::seat::Watcher;
use crate::watchers::{RUNS, Side, TASK, each_alone, waiting};

pub const NAMES: [&str; 4] = ["access/request", "access/feed", "access/idle_memory", "access/timing"];

/// Watchers of scopes of which no two are alike.
const SCOPED: usize = 1_000;

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&NAMES[..1]) {
        request(report).await?;
    }
    if report.wants(&NAMES[1..2]) {
        feed(report).await?;
    }
    if report.wants(&NAMES[2..3]) {
        idle_memory(report).await?;
    }
    if report.wants(&NAMES[3..]) {
        timing(report).await?;
    }
    Ok(())
}

/// Looks at one task, again and again, by callers of each kind in turn.
async fn request(report: &mut Report) -> Outcome {
    const READS: usize = 60_000;
    const FIRST_READS: usize = 4_000;
    let (open_folder, closed_folder) = (Folder::new()?, Folder::new()?);
    let (es256, rs256) = (Issuer::es256()?, Issuer::rs256()?);
    let config = closed_folder.path().join("taskhub.toml");
    std::fs::write(&config, es256.config(&closed_folder)? + &rs256.config(&closed_folder)?)?;
    let mut open = Hub::start(&open_folder).await?;
    let mut closed = Hub::start_closed(&closed_folder, &["--config", config.to_str().ok_or("an odd path")?]).await?;
    let [of_open, of_closed] = [one_task(&mut open).await?, one_task(&mut closed).await?];
    let nobody = [String::new()];
    let api = [closed.token.clone()];
    let known = [es256.sign()?];
    let mut costs = [(); 5].map(|()| Vec::new());
    for run in 0..=RUNS {
        let sign = |issuer: &Issuer| (0..FIRST_READS).map(|_| issuer.sign()).collect::<Outcome<Vec<String>>>();
        let fresh = [sign(&rs256)?, sign(&es256)?];
        let callers: [(&Hub, &str, &[String], usize); 5] = [
            (&open, &of_open, &nobody, READS),
            (&closed, &of_closed, &api, READS),
            (&closed, &of_closed, &known, READS),
            (&closed, &of_closed, &fresh[0], FIRST_READS),
            (&closed, &of_closed, &fresh[1], FIRST_READS),
        ];
        for ((hub, path, tokens, reads), costs) in callers.into_iter().zip(&mut costs) {
            let cost = cost_of_a_read(hub, path, tokens, reads).await?;
            // The first time is to warm up.
            if run > 0 {
                costs.push(cost);
            }
        }
    }
    let [open, api, known, rs256, es256] = costs.map(median);
    report.row(Row {
        name: NAMES[0],
        measured: format!(
            "{:+.1} µs of hub CPU with an API token, {:+.1} with a JWT seen before, with a new one {:+.1} (RS256) or {:+.1} (ES256)",
            api - open,
            known - open,
            rs256 - open,
            es256 - open
        ),
        target: "≤ + 2 µs, + 2 µs, + 60 µs",
        floor: Some(format!("a look at a task on an open hub: {open:.1} µs")),
        peers: "",
    });
    Ok(())
}

/// Where a new task is found.
async fn one_task(hub: &mut Hub) -> Outcome<String> {
    let made = hub.post("/api/v1/tasks", br#"{"task_type":"other"}"#).await?;
    Ok(format!("/api/v1/tasks/{}", made["task_id"].as_str().ok_or("no task_id")?))
}

/// Microseconds of the hub's CPU for each of so many reads, with these tokens one after the other.
async fn cost_of_a_read(hub: &Hub, path: &str, tokens: &[String], reads: usize) -> Outcome<f64> {
    const CONNECTIONS: usize = 16;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(hub.address).await?);
    }
    let next = Cell::new(0);
    let before = hub.process.cpu()?;
    let reading = connections.into_iter().map(async |mut connection| {
        while next.get() < reads {
            let at = next.replace(next.get() + 1);
            connection.show(&tokens[at % tokens.len()]);
            connection.get(path).await?;
        }
        Outcome::Ok(())
    });
    try_join_all(reading).await?;
    Ok((hub.process.cpu()? - before).as_secs_f64() * 1e6 / reads as f64)
}

/// An application that signs tokens: `iss` is its algorithm.
struct Issuer {
    key: Key,
    random: SystemRandom,
}

enum Key {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl Issuer {
    fn es256() -> Outcome<Issuer> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let document = document.map_err(|_| "no key could be made")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Ok(Issuer { key: Key::Es256(key.map_err(|error| error.to_string())?), random })
    }

    fn rs256() -> Outcome<Issuer> {
        let made = Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"])
            .stderr(Stdio::null())
            .output()?;
        // Of either kind, as the version of openssl has it.
        let key = RsaKeyPair::from_pkcs8(&made.stdout).or_else(|_| RsaKeyPair::from_der(&made.stdout));
        let key = key.map_err(|error| error.to_string())?;
        Ok(Issuer { key: Key::Rs256(key), random: SystemRandom::new() })
    }

    fn alg(&self) -> &'static str {
        match self.key {
            Key::Es256(_) => "ES256",
            Key::Rs256(_) => "RS256",
        }
    }

    /// How the file of a hub tells of it.
    fn config(&self, folder: &Folder) -> Outcome<String> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match &self.key {
            Key::Es256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Key::Rs256(key) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": text(&n), "e": text(&e)})
            }
        };
        let key_file = folder.path().join(self.alg());
        std::fs::write(&key_file, jwk.to_string())?;
        let table = format!("[[auth.jwt]]\niss = {:?}\naud = \"taskhub\"\nkey_file = {key_file:?}\n", self.alg());
        Ok(table + "default_role = \"operator\"\n")
    }

    /// A token like no other.
    fn sign(&self) -> Outcome<String> {
        let exp = now_ns() / 1_000_000_000 + 3_600;
        let claims = json!({"iss": self.alg(), "aud": "taskhub", "sub": "ann", "exp": exp, "jti": Uuid::now_v7()});
        let [head, claims] =
            [json!({"alg": self.alg(), "typ": "JWT"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{head}.{claims}");
        let wrong = |_| "no signature could be made";
        let signature = match &self.key {
            Key::Es256(key) => key.sign(&self.random, signed.as_bytes()).map_err(wrong)?.as_ref().to_vec(),
            Key::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.random, signed.as_bytes(), &mut signature).map_err(wrong)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A scoped token for each of these filters.
async fn scoped_tokens(hub: &mut Hub, filters: impl Iterator<Item = Value>) -> Outcome<Vec<String>> {
    let mut tokens = Vec::new();
    for filter in filters {
        let asked = json!({"allow": ["read"], "filter": filter});
        let made = hub.post("/api/v1/tokens", asked.to_string().as_bytes()).await?;
        tokens.push(made["token"].as_str().ok_or("no token")?.to_owned());
    }
    Ok(tokens)
}

/// An event for a thousand watchers: of a thousand scopes, and of none.
async fn feed(report: &mut Report) -> Outcome {
    let drive = Drive {
        task: TASK.into(),
        events: 240,
        batch: 1,
        receivers: SCOPED as u32,
        hz: Some(60.0),
        window: 1,
        timed: false,
    };
    let warm_up = Drive { events: 30, ..drive.clone() };
    let (open_folder, closed_folder) = (Folder::new()?, Folder::new()?);
    let (open, _) = Side::hub(&open_folder, SCOPED as u32).await?;
    let mut hub = Hub::start_closed(&closed_folder, &[]).await?;
    // Each sees tasks of the watched type, and of one that no other sees.
    let filters = (0..SCOPED).map(|n| json!({"task_type": ["report.monthly", format!("of-{n}")]}));
    let tokens = scoped_tokens(&mut hub, filters).await?;
    let mut crowd = Crowd::start_as(hub.address, &hub.token)?;
    crowd.join(tokens.into_iter().map(|token| Watcher { filter: "{}".into(), token }).collect())?;
    hub.process.until_quiet().await?;
    let mut sides = [open, Side { process: hub.process, crowd }];
    for side in &mut sides {
        side.deliver(&warm_up)?;
    }
    let mut costs = [vec![], vec![]];
    for _ in 0..RUNS {
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            costs.push(side.deliver(&drive)?.0);
        }
    }
    let [without, scoped] = costs.map(median);
    report.row(Row {
        name: NAMES[1],
        measured: format!(
            "{:.2} ×: {scoped:.2} µs of hub CPU a delivery to 1,000 watchers of 1,000 scopes, {without:.2} without scopes",
            scoped / without
        ),
        target: "≤ 1.1 ×",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// Ten thousand who wait for one task each, each with a scoped token for that task, as pages have.
async fn idle_memory(report: &mut Report) -> Outcome {
    const WATCHERS: usize = 10_000;
    const WARM_UP: usize = 100;
    let folder = Folder::new()?;
    let mut hub = Hub::start_closed(&folder, &[]).await?;
    let mut watchers = each_alone(&waiting(&mut hub, WARM_UP + WATCHERS).await?);
    let filters: Vec<Value> = watchers.iter().map(|one| serde_json::from_str(&one.filter)).collect::<Result<_, _>>()?;
    let tokens = scoped_tokens(&mut hub, filters.into_iter()).await?;
    for (watcher, token) in watchers.iter_mut().zip(tokens) {
        watcher.token = token;
    }
    let mut crowd = Crowd::start_as(hub.address, &hub.token)?;
    crowd.join(watchers.split_off(WATCHERS))?;
    hub.process.until_quiet().await?;
    let before = hub.process.memory()?;
    crowd.join(watchers)?;
    hub.process.until_quiet().await?;
    let bytes = hub.process.memory()?.saturating_sub(before);
    report.row(Row {
        name: NAMES[2],
        measured: format!(
            "{:.2} KiB a watcher of one task, with its own token",
            bytes as f64 / WATCHERS as f64 / 1024.0
        ),
        target: "≤ 2.6 KiB",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// A user asks for tasks of others and for such as never were, in turn: whether the times of the answers come from one
/// distribution, by Mann and Whitney's test. `p` is how often chance alone differs as much.
async fn timing(report: &mut Report) -> Outcome {
    const PAIRS: usize = 10_000;
    let folder = Folder::new()?;
    let mut hub = Hub::start_closed(&folder, &[]).await?;
    let foreign = waiting(&mut hub, PAIRS).await?;
    let made = hub.post("/api/v1/api-tokens", br#"{"name":"ann","role":"user","user_id":"ann"}"#).await?;
    let token = made["token"].as_str().ok_or("no token")?;
    hub.process.until_quiet().await?;
    let mut connection = Connection::open_as(hub.address, token).await?;
    let (mut of_foreign, mut of_missing) = (Vec::new(), Vec::new());
    for (at, foreign) in foreign.iter().enumerate() {
        // Of the same time as the other.
        let foreign: Uuid = foreign.parse()?;
        let mut missing = foreign.into_bytes();
        missing[12..].copy_from_slice(&Uuid::new_v4().into_bytes()[..4]);
        let missing = Uuid::from_bytes(missing);
        let mut pair = [(foreign, &mut of_foreign), (missing, &mut of_missing)];
        // Whichever comes second finds everything warm.
        if at % 2 == 1 {
            pair.reverse();
        }
        for (task_id, times) in pair {
            let path = format!("/api/v1/tasks/{task_id}");
            let begun = Instant::now();
            let status = connection.try_get(&path).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            if status != 404 {
                return Err(format!("a task of others was answered with {status}").into());
            }
        }
    }
    let (above, p) = mann_whitney(&of_foreign, &of_missing);
    report.row(Row {
        name: NAMES[3],
        measured: format!(
            "p = {p:.2}: a foreign task takes longer than a missing one in {:.2} % of pairs ({:.1} and {:.1} µs)",
            100.0 * above,
            median(of_foreign),
            median(of_missing)
        ),
        target: "p ≥ 0.01",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// How often one of `ours` is above one of `theirs`, a tie counting half; and how likely chance alone is to be as far from
/// one half, by the normal approximation, which is good for thousands.
fn mann_whitney(ours: &[f64], theirs: &[f64]) -> (f64, f64) {
    let mut sorted = theirs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |value: f64| {
        let (below, not_above) =
            (sorted.partition_point(|&their| their < value), sorted.partition_point(|&their| their <= value));
        (below + not_above) as f64 / 2.0
    };
    let (of_ours, of_theirs) = (ours.len() as f64, theirs.len() as f64);
    let pairs = of_ours * of_theirs;
    let above = ours.iter().map(|&value| below(value)).sum::<f64>();
    let z = (above - pairs / 2.0) / (pairs * (of_ours + of_theirs + 1.0) / 12.0).sqrt();
    (above / pairs, tail(z.abs()))
}

/// How much of a normal distribution lies further from its middle than `z`, to seven digits (Abramowitz and Stegun, 7.1.26).
fn tail(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t) * (-x * x).exp()
}
