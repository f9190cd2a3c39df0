//! What can be set on a hub: every field with its default, as an argument or in the environment.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine;
use crate::http::{BasePath, Door, HttpLimits, LiveLimits, TrustedProxies};
use crate::hub::{CallbackOptions, FeedOptions, HubOptions};
use crate::keys::{AuthConfig, JwtIssuer, KeyOptions, Keys};
use crate::listen::{Listen, UnixMode};
use crate::task::{FILTER_VALUES_MAX, PAYLOAD_BYTES_MAX};
use crate::telemetry::LogFormat;

/// `taskhub serve`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct ServeConfig {
    /// The address to listen on; port 0 takes a free one. Or unix:PATH, a Unix socket
    ///
    /// An address that others can reach needs a hub that knows its callers (taskhub init), or --insecure-open. The socket of a hub
    /// that is gone is replaced; where another program answers, the hub does not start.
    #[arg(long, env = "TASKHUB_LISTEN", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub listen: Listen,

    /// Who may connect to the Unix socket: the mode of its file. 0660 lets its group in, such as a proxy's
    #[arg(long, env = "TASKHUB_UNIX_MODE", default_value_t, value_name = "MODE")]
    pub unix_mode: UnixMode,

    /// Listen on an address that others can reach, although everyone there may do everything
    #[arg(long, env = "TASKHUB_INSECURE_OPEN")]
    pub insecure_open: bool,

    /// Serve callers without a token although there are tokens; on this machine only
    #[arg(long, env = "TASKHUB_OPEN")]
    pub open: bool,

    /// Shows /metrics to whoever asks, without a token
    ///
    /// Without, viewers, operators and admins see it. It tells the names of queues and task types, and how much is going on; of no task.
    #[arg(long, env = "TASKHUB_METRICS_OPEN")]
    pub metrics_open: bool,

    /// The certificate with which the hub speaks TLS, and the chain behind it, in PEM
    ///
    /// The port takes no plain HTTP then. It and the key are read again when their files change; what cannot be used is
    /// said in the log, and the old one stays.
    #[arg(long, env = "TASKHUB_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM
    #[arg(long, env = "TASKHUB_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// More names by which the hub is called, such as hub.example, with commas between; `*` for any
    ///
    /// A request whose `Host` is neither one of these nor this machine is refused, because any page could have its own
    /// name lead here. Pages that come from these names may use the hub, whatever their port. A hub that listens to
    /// others is also called by its addresses, and by names that only private networks have.
    #[arg(long, env = "TASKHUB_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    pub hosts: Vec<String>,

    /// Pages elsewhere that may use the hub, by their origin, such as `https://app.example`, with commas between
    ///
    /// Pages of this machine and of the hub's own names need no mention. All others are refused.
    #[arg(long, env = "TASKHUB_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub origins: Vec<String>,

    /// Proxies whose word on the addresses of their clients counts, with commas between: addresses, networks such as
    /// 10.0.0.0/8, and `unix` for whoever comes by the Unix socket
    ///
    /// Of `X-Forwarded-For` or `Forwarded` the last address counts that is none of these. Without, the headers mean nothing.
    #[arg(long, env = "TASKHUB_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,

    /// The path that all of the hub stands under, for a proxy that passes it on, such as /tasks
    ///
    /// Beside it, only /healthz and /readyz are there without it.
    #[arg(long, env = "TASKHUB_BASE_PATH", default_value = "/", value_name = "PATH")]
    pub base_path: BasePath,

    /// The folder where the hub keeps its file; made where it is missing
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    pub data: PathBuf,

    /// Where tasks are kept
    #[arg(long, env = "TASKHUB_STORE", value_enum, default_value_t)]
    pub store: StoreKind,

    /// How long final tasks are kept
    #[arg(long, env = "TASKHUB_RETAIN", default_value = "24h", value_name = "TIME", value_parser = duration)]
    pub retain: Duration,

    /// How long deleted tasks are remembered, for clients that were cut off and resume
    #[arg(long, env = "TASKHUB_TOMBSTONES", default_value = "10m", value_name = "TIME", value_parser = duration)]
    pub tombstones: Duration,

    /// How many days it is kept who did what
    #[arg(long, env = "TASKHUB_AUDIT_DAYS", default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub audit_days: u32,

    /// How long running tasks may still run once the hub was told to end
    #[arg(long, env = "TASKHUB_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Duration,

    /// Over how long goodbyes are spread, so that not everyone comes back at once
    #[arg(long, env = "TASKHUB_GOODBYE", default_value = "2s", value_name = "TIME", value_parser = duration)]
    pub goodbye: Duration,

    /// After how long without a word a worker loses its tasks
    #[arg(long, env = "TASKHUB_LEASE", default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub lease: Duration,

    /// How long a worker whose connection broke may take to come back
    #[arg(long, env = "TASKHUB_GRACE", default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub grace: Duration,

    /// How often a watcher hears of one task's progress, per second, at most
    #[arg(long, env = "TASKHUB_MAX_HZ", default_value_t = 10.0, value_name = "HZ", value_parser = hertz)]
    pub max_hz: f64,

    /// The largest payload, in bytes of JSON text
    #[arg(long, env = "TASKHUB_PAYLOAD_MAX", default_value_t = PAYLOAD_BYTES_MAX, value_name = "BYTES")]
    pub payload_max: usize,

    /// The largest result that is uploaded into a file beside the store, in bytes; 0 for none
    #[arg(long, env = "TASKHUB_RESULT_MAX", default_value_t = HubOptions::RESULT_BYTES_MAX, value_name = "BYTES")]
    pub result_max: u64,

    /// The most unfinished tasks; more are refused
    #[arg(long, env = "TASKHUB_TASKS_MAX", default_value_t = engine::Options::default().tasks_max, value_name = "COUNT")]
    pub tasks_max: usize,

    /// The most connections; more wait to be accepted
    #[arg(long, env = "TASKHUB_CONNECTIONS_MAX", default_value_t = 20_000, value_name = "COUNT")]
    pub connections_max: usize,

    /// The most WebSockets and event streams; more are refused
    #[arg(long, env = "TASKHUB_SOCKETS_MAX", default_value_t = 100_000, value_name = "COUNT")]
    pub sockets_max: usize,

    /// Let callbacks go to private and local addresses, too
    ///
    /// Whoever may submit a task can then have the hub call whatever the hub can reach.
    #[arg(long, env = "TASKHUB_CALLBACKS_PRIVATE")]
    pub callbacks_private: bool,

    /// How long a callback that does not arrive is tried again
    #[arg(long, env = "TASKHUB_CALLBACKS_FOR", default_value = "24h", value_name = "TIME", value_parser = duration)]
    pub callbacks_for: Duration,

    #[command(flatten)]
    pub live: LiveConfig,

    #[command(flatten)]
    pub jwt: JwtConfig,

    /// Who else signs tokens that are taken: the table `auth` of the file, which has no options.
    #[arg(skip)]
    pub auth: AuthConfig,

    /// How log lines look. What is logged is set by TASKHUB_LOG, such as `info,taskhub::hub=debug`
    #[arg(long, env = "TASKHUB_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// One application whose tokens are taken. Of more, and how their claims are read, the file tells: `[[auth.jwt]]`.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Tokens of an application (JWT)")]
pub struct JwtConfig {
    /// Who signs them: their `iss`
    #[arg(long, env = "TASKHUB_JWT_ISS", value_name = "ISSUER")]
    pub jwt_iss: Option<String>,

    /// Whom they are for: one of these must be their `aud`; with commas between
    #[arg(long, env = "TASKHUB_JWT_AUD", value_name = "AUDIENCES", value_delimiter = ',')]
    pub jwt_aud: Vec<String>,

    /// What their signature is checked with: a public key in PEM, a JWK, or the secret of HS256
    #[arg(long, env = "TASKHUB_JWT_KEY", value_name = "FILE")]
    pub jwt_key: Option<PathBuf>,

    /// In place of a key, a set of keys (JWKS) that may change: where it is fetched, or a file
    #[arg(long, env = "TASKHUB_JWKS", value_name = "URL|FILE")]
    pub jwks: Option<String>,
}

impl JwtConfig {
    /// The application, if one is named; or what is missing.
    fn issuer(&self) -> Result<Option<JwtIssuer>, String> {
        if *self == JwtConfig::default() {
            return Ok(None);
        }
        let (Some(iss), true) = (&self.jwt_iss, self.jwt_key.is_some() != self.jwks.is_some()) else {
            return Err("--jwt-iss, --jwt-aud and one of --jwt-key and --jwks belong together".into());
        };
        let key_file = self.jwt_key.clone();
        let issuer = JwtIssuer { key_file, jwks: self.jwks.clone(), ..JwtIssuer::new(iss, &self.jwt_aud) };
        issuer.check().map(|()| Some(issuer))
    }
}

/// Bounds of live clients: browsers and programs that watch.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Live clients")]
pub struct LiveConfig {
    /// The most live clients of one caller: of one address, as long as the hub knows no users
    #[arg(long, env = "TASKHUB_LIVE_PER_CALLER_MAX", default_value_t = LIVE.per_caller_max, value_name = "COUNT")]
    pub live_per_caller_max: usize,

    /// The most subscriptions of one client
    #[arg(long, env = "TASKHUB_LIVE_SUBSCRIPTIONS_MAX", default_value_t = LIVE.subscriptions_max, value_name = "COUNT")]
    pub live_subscriptions_max: usize,

    /// The most values in one filter, at most 1000
    #[arg(long, env = "TASKHUB_LIVE_FILTER_VALUES_MAX", default_value_t = LIVE.filter_values_max, value_name = "COUNT")]
    pub live_filter_values_max: usize,

    /// The largest message of a client, in bytes
    #[arg(long, env = "TASKHUB_LIVE_MESSAGE_MAX", default_value_t = LIVE.message_bytes_max, value_name = "BYTES")]
    pub live_message_max: usize,

    /// The most messages of a client in a second; one that sends more is closed
    #[arg(long, env = "TASKHUB_LIVE_RATE_MAX", default_value_t = LIVE.messages_per_s_max, value_name = "COUNT")]
    pub live_rate_max: u32,

    /// After how long a client that never said a word is closed
    #[arg(long, env = "TASKHUB_LIVE_HELLO_TIME", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub live_hello_time: Duration,

    /// How often clients are pinged and told a mark; one that is silent for two pings is closed
    #[arg(long, env = "TASKHUB_LIVE_PING", default_value = "25s", value_name = "TIME", value_parser = duration)]
    pub live_ping: Duration,

    /// After how long a client that takes nothing of what waits for it is closed
    #[arg(long, env = "TASKHUB_LIVE_STALL", default_value = "15s", value_name = "TIME", value_parser = duration)]
    pub live_stall: Duration,

    /// Of how many changed tasks a client that resumes is told; one that missed more gets a reset and a snapshot
    #[arg(long, env = "TASKHUB_LIVE_RESUME_MAX", default_value_t = LIVE.resume_len_max, value_name = "COUNT")]
    pub live_resume_max: usize,
}

const LIVE: LiveLimits = LiveLimits::DEFAULT;

impl Default for LiveConfig {
    fn default() -> LiveConfig {
        LiveConfig {
            live_per_caller_max: LIVE.per_caller_max,
            live_subscriptions_max: LIVE.subscriptions_max,
            live_filter_values_max: LIVE.filter_values_max,
            live_message_max: LIVE.message_bytes_max,
            live_rate_max: LIVE.messages_per_s_max,
            live_hello_time: LIVE.hello_time,
            live_ping: FeedOptions::default().ping,
            live_stall: LIVE.stall,
            live_resume_max: LIVE.resume_len_max,
        }
    }
}

/// Where tasks are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// In a SQLite file in the data folder.
    #[default]
    Sqlite,
    /// In memory: gone when the hub ends. For tests and trials.
    Memory,
}

impl Default for ServeConfig {
    /// What stands where nothing is said, the environment included.
    fn default() -> ServeConfig {
        ServeConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            unix_mode: UnixMode::default(),
            insecure_open: false,
            open: false,
            metrics_open: false,
            tls_cert: None,
            tls_key: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            base_path: BasePath::default(),
            data: "./data".into(),
            store: StoreKind::default(),
            retain: Duration::from_secs(24 * 3_600),
            tombstones: Duration::from_secs(600),
            audit_days: 90,
            drain_timeout: Duration::from_secs(30),
            goodbye: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            max_hz: 10.0,
            payload_max: PAYLOAD_BYTES_MAX,
            result_max: HubOptions::RESULT_BYTES_MAX,
            tasks_max: engine::Options::default().tasks_max,
            connections_max: 20_000,
            sockets_max: 100_000,
            callbacks_private: false,
            callbacks_for: Duration::from_secs(24 * 3_600),
            live: LiveConfig::default(),
            jwt: JwtConfig::default(),
            auth: AuthConfig::default(),
            log_format: LogFormat::default(),
        }
    }
}

impl ServeConfig {
    /// A hub in memory on a free port of this machine: for tests, and for trying things out.
    pub fn for_trial() -> ServeConfig {
        ServeConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            store: StoreKind::Memory,
            drain_timeout: Duration::from_secs(1),
            goodbye: Duration::from_millis(50),
            ..ServeConfig::default()
        }
    }

    /// What the hub itself has to know.
    pub fn hub_options(&self) -> HubOptions {
        HubOptions {
            engine: engine::Options {
                lease_ms: self.lease.as_millis() as u64,
                grace_ms: self.grace.as_millis() as u64,
                tasks_max: self.tasks_max,
                payload_bytes_max: self.payload_max,
                ..engine::Options::default()
            },
            retain: self.retain,
            tombstones: self.tombstones,
            audit: Duration::from_secs(u64::from(self.audit_days) * 86_400),
            result_bytes_max: self.result_max,
            feed: FeedOptions {
                max_hz: self.max_hz,
                ping: self.live.live_ping,
                goodbye: self.goodbye,
                ..FeedOptions::default()
            },
            callbacks: CallbackOptions {
                private: self.callbacks_private,
                patience: self.callbacks_for,
                folder: (self.store == StoreKind::Sqlite).then(|| self.data.clone()),
            },
        }
    }

    /// What the routes have to know.
    pub fn http_limits(&self) -> HttpLimits {
        HttpLimits { payload_bytes_max: self.payload_max, sockets_max: self.sockets_max }
    }

    /// Who is let in, by name and by page; or what is wrong with `--hosts` or `--origins`.
    pub fn door(&self) -> Result<Door, String> {
        Door::new(self.listen.is_reachable(), &self.hosts, &self.origins)
    }

    /// Whose word on addresses counts; or what is wrong with `--trusted-proxies`.
    pub fn proxies(&self) -> Result<TrustedProxies, String> {
        TrustedProxies::new(&self.trusted_proxies)
    }

    /// What live clients have to keep to.
    pub fn live_limits(&self) -> LiveLimits {
        LiveLimits {
            per_caller_max: self.live.live_per_caller_max,
            subscriptions_max: self.live.live_subscriptions_max,
            filter_values_max: self.live.live_filter_values_max,
            message_bytes_max: self.live.live_message_max,
            messages_per_s_max: self.live.live_rate_max,
            hello_time: self.live.live_hello_time,
            stall: self.live.live_stall,
            resume_len_max: self.live.live_resume_max,
        }
    }

    /// The files of certificate and key, where the hub speaks TLS.
    pub fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        self.tls_cert.clone().zip(self.tls_key.clone())
    }

    /// What is set about who is let in.
    pub fn key_options(&self) -> KeyOptions {
        // What is wrong with it was said by `check`.
        let named = self.jwt.issuer().ok().flatten();
        let issuers = named.into_iter().chain(self.auth.jwt.iter().cloned()).collect();
        KeyOptions { open: self.open, metrics_open: self.metrics_open, issuers }
    }

    /// Refuses an open hub where others can reach it.
    pub fn check_open(&self, keys: &Keys) -> Result<(), String> {
        match self.listen.is_reachable() && keys.is_open() && !self.insecure_open {
            true => Err(format!(
                "--listen {} can be reached by others, and the hub knows no callers: everyone there could do everything. \
                 Make a token first (taskhub init, or taskhub token create), listen on 127.0.0.1, or say --insecure-open",
                self.listen
            )),
            false => Ok(()),
        }
    }

    /// Refuses what cannot work or would be careless; the text says what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_reachable() && self.open {
            return Err(format!("--listen {} can be reached by others: --open is for 127.0.0.1 only", self.listen));
        }
        self.door()?;
        self.proxies()?;
        self.jwt.issuer()?;
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err("--tls-cert and --tls-key belong together".into());
        }
        if self.tls_cert.is_some() && matches!(self.listen, Listen::Unix(_)) {
            return Err("a Unix socket needs no TLS: leave out --tls-cert and --tls-key".into());
        }
        for (name, value, min, max) in [
            ("--lease", self.lease, Duration::from_millis(100), Duration::from_secs(3_600)),
            ("--grace", self.grace, Duration::ZERO, Duration::from_secs(3_600)),
            ("--goodbye", self.goodbye, Duration::ZERO, Duration::from_secs(600)),
            ("--retain", self.retain, Duration::from_secs(1), Duration::from_secs(3_650 * 86_400)),
            ("--callbacks-for", self.callbacks_for, Duration::from_secs(1), Duration::from_secs(30 * 86_400)),
            ("--tombstones", self.tombstones, Duration::from_secs(1), Duration::from_secs(30 * 86_400)),
            ("--live-hello-time", self.live.live_hello_time, Duration::from_millis(100), Duration::from_secs(3_600)),
            ("--live-ping", self.live.live_ping, Duration::from_millis(100), Duration::from_secs(600)),
            ("--live-stall", self.live.live_stall, Duration::from_millis(100), Duration::from_secs(600)),
        ] {
            if value < min || value > max {
                let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
                return Err(format!("{name} must be from {min} to {max}"));
            }
        }
        for (name, value) in [
            ("--payload-max", self.payload_max),
            ("--tasks-max", self.tasks_max),
            ("--connections-max", self.connections_max),
            ("--sockets-max", self.sockets_max),
            ("--live-per-caller-max", self.live.live_per_caller_max),
            ("--live-subscriptions-max", self.live.live_subscriptions_max),
            ("--live-filter-values-max", self.live.live_filter_values_max),
            ("--live-rate-max", self.live.live_rate_max as usize),
            ("--live-resume-max", self.live.live_resume_max),
        ] {
            if value == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        // Clients that only watch counts say their first word when a ping is due.
        if self.live.live_hello_time <= self.live.live_ping {
            return Err("--live-hello-time must be longer than --live-ping".into());
        }
        if self.live.live_filter_values_max > FILTER_VALUES_MAX {
            return Err(format!("--live-filter-values-max must be at most {FILTER_VALUES_MAX}"));
        }
        // Less would not hold the smallest subscription, and more is held for each client that is half way through one.
        const MESSAGE_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 20;
        if !MESSAGE_BYTES.contains(&self.live.live_message_max) {
            let (min, max) = (MESSAGE_BYTES.start(), MESSAGE_BYTES.end());
            return Err(format!("--live-message-max must be from {min} to {max}"));
        }
        // Beyond this a payload is held several times over while it is read, kept and handed out.
        const PAYLOAD_MAX: usize = 64 << 20;
        if self.payload_max > PAYLOAD_MAX {
            return Err(format!("--payload-max must be at most {PAYLOAD_MAX}"));
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|why| format!("{why} (such as 500ms, 2s, 24h)"))
}

fn hertz(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hz) if (0.1..=1_000.0).contains(&hz) => Ok(hz),
        _ => Err("a number from 0.1 to 1000 is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::access::AccessRecord;
    use crate::task::Timestamp;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: ServeConfig,
    }

    fn parse(arguments: &str) -> Result<ServeConfig, String> {
        let words = std::iter::once("serve").chain(arguments.split_whitespace());
        let config = Command::try_parse_from(words).map_err(|why| why.to_string())?.config;
        config.check().map(|()| config)
    }

    #[test]
    fn visible_defaults_are_the_defaults() {
        assert_eq!(parse("").unwrap(), ServeConfig::default());
    }

    #[test]
    fn an_application_is_named_whole() {
        let named = parse("--jwt-iss i --jwt-aud a,b --jwks https://id.example/keys").unwrap().key_options().issuers;
        assert_eq!((named[0].iss.as_str(), named[0].aud.len()), ("i", 2));
        assert!(
            parse("--jwt-iss i --jwt-aud a --jwt-key key.pem").unwrap().key_options().issuers[0].key_file.is_some()
        );
        for (arguments, why) in [
            ("--jwt-iss i --jwt-aud a", "belong together"),
            ("--jwt-aud a --jwt-key k", "belong together"),
            ("--jwt-iss i --jwt-aud a --jwt-key k --jwks j", "belong together"),
            ("--jwt-iss i --jwt-key k", "aud must be"),
            ("--jwt-iss i --jwt-aud a --jwks http://id.example/keys", "over https"),
        ] {
            let told = parse(arguments).unwrap_err();
            assert!(told.contains(why), "{arguments}: {told}");
        }
    }

    #[test]
    fn others_get_in_only_when_that_is_said() {
        let open = Keys::new(KeyOptions::default(), Vec::new()).unwrap();
        let allowed = |arguments: &str| parse(arguments).unwrap().check_open(&open);
        assert!(allowed("--listen 0.0.0.0:8080").unwrap_err().contains("--insecure-open"));
        assert!(allowed("--listen 0.0.0.0:8080 --insecure-open").is_ok());
        assert!(allowed("--listen 127.0.0.1:8080").is_ok());
        let closed = AccessRecord::Closed { since: Timestamp::now() };
        let closed = Keys::new(KeyOptions::default(), vec![closed]).unwrap();
        assert!(parse("--listen 0.0.0.0:8080").unwrap().check_open(&closed).is_ok());
        assert!(parse("--listen 0.0.0.0:8080 --open").unwrap_err().contains("--open"));
        assert!(parse("--open").is_ok());
        assert!(parse("--listen [::1]:8080").is_ok());
        assert!(parse("--listen localhost:0").is_ok());
        assert!(parse("--listen unix:/run/taskhub/hub.sock --unix-mode 0660").is_ok());
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            "--listen 8080",
            "--retain soon",
            "--lease 1ms",
            "--max-hz 0",
            "--payload-max 0",
            "--store paper",
            "--live-rate-max 0",
            "--live-ping 1ms",
            "--live-filter-values-max 1001",
            "--live-message-max 10",
            "--hosts http://hub.example",
            "--hosts hub.example:80",
            "--origins app.example",
            "--origins null",
            "--listen unix:",
            "--unix-mode 0066",
            "--trusted-proxies 10.0.0.1/8",
            "--trusted-proxies proxy.example",
            "--base-path tasks",
            "--tls-cert cert.pem",
            "--tls-cert cert.pem --tls-key key.pem --listen unix:hub.sock",
            "--base-path /a/../b",
            "--origins https://app.example/page",
            "x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("--drain-timeout 1m").unwrap().drain_timeout, Duration::from_secs(60));
        let several = parse("--hosts hub.example,[::5] --origins https://app.example,http://10.0.0.1:3000").unwrap();
        assert_eq!((several.hosts.len(), several.origins.len()), (2, 2));
    }
}
