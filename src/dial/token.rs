//! The token that says who calls: a text, or a function that fetches one.
//!
//! What a function gave is kept for all that share the token: requests, sockets, clones. The function is called again where
//! that is about to expire, or where the hub does not take it any more; by one caller at a time, for all that wait. When it
//! expires stands in its claims (`exp`), which are read here and not checked: that is for the hub. Of a token without claims
//! only the hub knows, and it says so when the time has come.
//!
//! The text is in no `Debug` output and in no error.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A token is renewed when a fifth of its life is left, or this much.
const RENEW_BEFORE_MAX: Duration = Duration::from_secs(60);
/// Two of a function's tokens are this far apart, however short they live.
const FETCH_GAP: Duration = Duration::from_secs(1);
/// A function that failed while a token is in force is called again after this.
const FETCH_AGAIN: Duration = Duration::from_secs(5);
/// A function that has given nothing by then has failed.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// The longest text that a hub looks at.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Who calls. Cheap to clone; clones share what was fetched.
#[derive(Clone)]
pub struct Token(Arc<Source>);

enum Source {
    Fixed(Result<Issued, NoToken>),
    Fetched { fetch: Fetch, held: Mutex<Option<Issued>> },
}

type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// A token as it goes to the hub.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    text: Arc<str>,
    renew_at: Option<Instant>,
}

/// Why there is no token to call with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToken(String);

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoToken {}

impl Token {
    /// This text, for as long as it is good.
    pub fn new(text: impl AsRef<str>) -> Token {
        Token(Arc::new(Source::Fixed(Issued::read(text.as_ref()))))
    }

    /// What a function gives: an API token that is kept elsewhere, a JWT of the application, a scoped token of its backend.
    ///
    /// ```
    /// # async fn from_my_login() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// use taskhub::client::{Client, Token};
    ///
    /// let hub = Client::new("https://hub.example:8443").map(|hub| hub.with_token(Token::fetched(from_my_login)));
    /// ```
    pub fn fetched<F, Fut, T, E>(fetch: F) -> Token
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: AsRef<str>,
        E: fmt::Display,
    {
        let fetch: Fetch = Box::new(move || {
            fetch().map(|given| given.map(|text| text.as_ref().to_owned()).map_err(|why| why.to_string())).boxed()
        });
        Token(Arc::new(Source::Fetched { fetch, held: Mutex::new(None) }))
    }

    /// Whether another may be had in place of one that the hub refused.
    pub(crate) fn has_others(&self) -> bool {
        matches!(&*self.0, Source::Fetched { .. })
    }

    /// One to call with. Where the next cannot be had, the one before is given until the hub refuses it.
    pub(crate) async fn get(&self) -> Result<Issued, NoToken> {
        let (fetch, held) = match &*self.0 {
            Source::Fixed(issued) => return issued.clone(),
            Source::Fetched { fetch, held } => (fetch, held),
        };
        let mut held = held.lock().await;
        let is_due = held.as_ref().is_none_or(|issued| issued.renew_at.is_some_and(|at| at <= Instant::now()));
        if is_due {
            match (fetched(fetch).await, &mut *held) {
                (Ok(issued), _) => *held = Some(issued),
                (Err(why), None) => return Err(why),
                (Err(why), Some(old)) => {
                    tracing::warn!(%why, "the token could not be renewed, the one before is used on");
                    old.renew_at = Some(Instant::now() + FETCH_AGAIN);
                }
            }
        }
        Ok(held.clone().expect("it was fetched"))
    }

    /// Another than this one, which the hub does not take or is about to; `None` where there is no other.
    pub(crate) async fn instead_of(&self, old: &Issued) -> Result<Option<Issued>, NoToken> {
        let Source::Fetched { fetch, held } = &*self.0 else { return Ok(None) };
        let mut held = held.lock().await;
        match &*held {
            // Somebody else has heard of it already.
            Some(issued) if issued.text != old.text => Ok(Some(issued.clone())),
            _ => {
                let issued = fetched(fetch).await?;
                *held = Some(issued.clone());
                Ok(Some(issued))
            }
        }
    }
}

async fn fetched(fetch: &Fetch) -> Result<Issued, NoToken> {
    let given = tokio::time::timeout(FETCH_MAX, fetch()).await;
    let text = given.unwrap_or_else(|_| Err(format!("nothing was given within {} s", FETCH_MAX.as_secs())));
    text.map_err(|why| NoToken(format!("no token could be fetched: {why}"))).and_then(|text| Issued::read(&text))
}

impl Issued {
    fn read(text: &str) -> Result<Issued, NoToken> {
        let text = text.trim();
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = format!("a token is 1 to {TOKEN_BYTES_MAX} letters, digits and signs, without spaces");
            return Err(NoToken(why));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let renew_at = renew_in(text, now_s).map(|after| Instant::now() + after);
        Ok(Issued { text: text.into(), renew_at })
    }

    /// For the one header or message that it goes into.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How long until another is to be fetched.
    pub(crate) fn renew_in(&self) -> Option<Duration> {
        self.renew_at.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// When a token that was just given is to be renewed, by its claims. `None`: it does not say, or by this machine's clock it
/// has expired, which is for the hub to say.
pub(crate) fn renew_in(text: &str, now_s: f64) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let claims = text.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    // A clock that is behind the issuer's must not make its life longer.
    let life_s = (claims.exp - now_s).min(claims.exp - claims.iat.unwrap_or(f64::MIN));
    let life = Duration::try_from_secs_f64(life_s).ok().filter(|life| !life.is_zero())?;
    Some((life - (life / 5).min(RENEW_BEFORE_MAX)).max(FETCH_GAP))
}

impl From<&str> for Token {
    fn from(text: &str) -> Token {
        Token::new(text)
    }
}

impl From<String> for Token {
    fn from(text: String) -> Token {
        Token::new(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_others() { "Token(fetched)" } else { "Token(fixed)" })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn jwt(claims: &str) -> String {
        format!("ths_e30.{}.c2lnbmVk", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(renew_in(text, 1_000.0).map(|after| after.as_secs_f64()), expected, "{text}");
        };
        check(&jwt(r#"{"exp":1100}"#), Some(80.0));
        check(&jwt(r#"{"exp":4600}"#), Some(3_540.0));
        check(&jwt(r#"{"exp":1001}"#), Some(1.0));
        // By a clock that is half an hour behind.
        check(&jwt(r#"{"exp":2900,"iat":2800}"#), Some(80.0));
        check(&jwt(r#"{"exp":1000}"#), None);
        check(&jwt(r#"{"exp":1e300}"#), None);
        check(&jwt(r#"{"sub":"ada"}"#), None);
        check(&jwt("no JSON"), None);
        check("tht_opaque", None);
        check("a.%.b", None);
    }

    fn counting(fail_from: u64) -> (Token, Arc<AtomicU64>) {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = calls.clone();
        let token = Token::fetched(move || {
            let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                tokio::task::yield_now().await;
                if call < fail_from { Ok(format!("tht_{call}")) } else { Err("the login is down") }
            }
        });
        (token, calls)
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_fetch() {
        let (token, calls) = counting(9);
        let (one, other) = tokio::join!(token.get(), token.get());
        let first = one.unwrap();
        assert_eq!((first.text(), other.as_ref().unwrap().text()), ("tht_1", "tht_1"));
        let (one, other) = tokio::join!(token.instead_of(&first), token.instead_of(&first));
        assert_eq!((one.unwrap(), other.unwrap()), (token.get().await.ok(), token.get().await.ok()));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_renewed_is_used_on() {
        let (token, _) = counting(2);
        let first = token.get().await.unwrap();
        if let Source::Fetched { held, .. } = &*token.0 {
            held.lock().await.as_mut().unwrap().renew_at = Some(Instant::now());
        }
        assert_eq!(token.get().await.unwrap().text(), "tht_1");
        let why = token.instead_of(&first).await.unwrap_err();
        assert_eq!(why.to_string(), "no token could be fetched: the login is down");
        assert_eq!(Token::new("tht_x").instead_of(&first).await, Ok(None));
    }

    #[tokio::test]
    async fn no_text_is_shown() {
        let token = Token::new(" tht_secret\n");
        let issued = token.get().await.unwrap();
        assert_eq!(issued.text(), "tht_secret");
        assert!(!format!("{token:?} {issued:?}").contains("secret"));
        for bad in ["", "two words", "line\nbreak", "grün"] {
            let why = Token::new(bad).get().await.unwrap_err().to_string();
            assert!(why.contains("without spaces") && (bad.is_empty() || !why.contains(bad)), "{why}");
        }
    }
}
