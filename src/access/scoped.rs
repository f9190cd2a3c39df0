//! Scoped tokens: what a caller may, or less, for a while, for a browser or a partner.
//!
//! They are JWTs that the hub signs itself, so none of them is kept. What a token says is who made it and what is left of that:
//! the principal of a token is made anew from its maker, each time that it is seen first. Rights and sight are the maker's, AND-ed
//! with what the token allows and filters; so no token is ever more than its maker is now, and a maker that is no longer
//! in force takes all of its tokens along.
//!
//! A maker that has an API token is named by that. One that came with a JWT is not kept by the hub: what makes it a principal
//! stands in the token, and what could end it (its key, its issuer, its subject) is asked as of any JWT.
//!
//! The name of a token ends in a digest of itself and its maker, by which the hub knows whose it is though it is not kept.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::api_token::check_user;
use super::token::{SCOPED_PREFIX, from_hex, random, to_hex};
use super::{
    Credential, Fingerprint, HIDES_MAX, Hidden, Hide, Jws, Principal, Right, Rights, Role, Scoped, Sight, Signed,
    SigningKey, TOKEN_BYTES_MAX, Unauthenticated, VerifyKey,
};
use crate::task::{Filter, FilterSpec, Invalid, Name, Timestamp, optional_list, or_default, saturated};

/// The longest that a scoped token lives: a day.
pub const SCOPED_MS_MAX: u64 = 86_400_000;
/// How long it lives where nothing is said: ten minutes.
pub const SCOPED_MS_DEFAULT: u64 = 600_000;
/// In it, who signs and who is meant.
const HUB: &str = "taskhub";
/// The most items of `allow`. There are not that many.
const WORDS_MAX: usize = 16;
const JTI_RANDOM_BYTES: usize = 12;
const JTI_MAKER_BYTES: usize = 8;

/// What a scoped token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    Read,
    Cancel,
    Retry,
    Submit,
}

impl Allow {
    /// The rights that it stands for.
    pub const fn rights(self) -> Rights {
        match self {
            Allow::Read => Rights::of(&[Right::See, Right::Watch]),
            Allow::Cancel => Rights::of(&[Right::Cancel]),
            Allow::Retry => Rights::of(&[Right::Retry]),
            Allow::Submit => Rights::of(&[Right::Submit]),
        }
    }

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Allow::Read => "read",
            Allow::Cancel => "cancel",
            Allow::Retry => "retry",
            Allow::Submit => "submit",
        }
    }
}

/// What is asked for: the body of `POST /tokens`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewScoped {
    /// At least one.
    #[serde(default, deserialize_with = "words")]
    pub allow: Vec<Allow>,
    /// Which tasks it is for, of those that the maker sees. All but `status`, which changes.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "or_default")]
    pub filter: FilterSpec,
    /// Parts of tasks that it keeps from whoever has it.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "hides")]
    pub hide: Vec<Hide>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub ttl_ms: Option<u64>,
    /// For this user: it is for their tasks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// It is for one submission.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "or_default")]
    pub once: bool,
}

fn words<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    optional_list(deserializer, WORDS_MAX, "words").map(Option::unwrap_or_default)
}

/// What is hidden, as it stands on the wire.
pub fn hides<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hide>, D::Error> {
    optional_list(deserializer, HIDES_MAX, "parts").map(Option::unwrap_or_default)
}

/// A scoped token that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minted {
    pub token: String,
    pub jti: String,
    pub expires_at: Timestamp,
}

/// Without the text.
impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("jti", &self.jti).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why no scoped token was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The maker may not: the field, if one says too much, and why.
    Forbidden {
        field: Option<&'static str>,
        why: String,
    },
    Invalid(Invalid),
    /// The hub asks nobody who they are: there is nothing that a token could be less than.
    Open,
    /// The hub cannot sign now.
    Unavailable,
}

impl From<Invalid> for MintError {
    fn from(invalid: Invalid) -> MintError {
        MintError::Invalid(invalid)
    }
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScopedClaims {
    iss: String,
    aud: String,
    jti: String,
    /// In seconds, as JWTs have it.
    iat: f64,
    exp: f64,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Name>,
    pub mk: Maker,
    allow: Vec<Allow>,
    #[serde(default, skip_serializing_if = "is_default")]
    filter: FilterSpec,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hide: Vec<Hide>,
    /// It is for the user's tasks only, whatever the maker sees.
    #[serde(default, skip_serializing_if = "is_default")]
    own: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    once: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who made a scoped token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Maker {
    /// Somebody on a hub that was open.
    Anyone,
    /// Who holds the hub.
    Owner,
    /// The API token of this name whose digest begins so.
    Api { name: Name, digest: String },
    /// Who came with a JWT: as it was read then.
    Jwt {
        iss: String,
        sub: String,
        iat: Timestamp,
        key: String,
        role: Role,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<Name>,
        exp: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<Arc<FilterSpec>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hide: Vec<Hide>,
    },
}

/// How much of an API token's digest stands in what it makes: enough to know it again.
const DIGEST_CHARS: usize = 32;

impl Maker {
    /// `None`: it makes none, because it is scoped itself.
    fn of(principal: &Principal) -> Option<Maker> {
        Some(match &principal.credential {
            Credential::None => Maker::Anyone,
            Credential::Owner => Maker::Owner,
            Credential::ApiToken(token) => {
                Maker::Api { name: token.name.clone(), digest: token.digest.get(..DIGEST_CHARS)?.to_owned() }
            }
            Credential::Jwt(signed) => Maker::Jwt {
                iss: signed.issuer.to_string(),
                sub: signed.subject.to_string(),
                iat: signed.issued_at,
                key: signed.key.to_string(),
                role: principal.role,
                user: principal.user_id.clone(),
                exp: principal.expires_at?,
                filter: signed.filter.clone(),
                hide: principal.hidden.list().cloned().collect(),
            },
            Credential::Scoped(_) => return None,
        })
    }

    /// Whether this is the API token that is named.
    pub fn is_api_token(&self, token: &super::ApiToken) -> bool {
        matches!(self, Maker::Api { name, digest } if *name == token.name && token.digest.starts_with(digest.as_str()))
    }

    /// The principal of a maker that is not kept by the hub. `None`: it is kept, or does not read.
    pub fn principal(&self) -> Option<Principal> {
        match self {
            Maker::Anyone => Some(Principal::everyone()),
            Maker::Owner => Some(Principal::owner()),
            Maker::Api { .. } => None,
            Maker::Jwt { iss, sub, iat, key, role, user, exp, filter, hide } => {
                let (issuer, subject) = (iss.as_str().into(), sub.as_str().into());
                let signed =
                    Signed { issuer, subject, issued_at: *iat, key: Fingerprint::parse(key)?, filter: filter.clone() };
                let only = filter.as_deref().cloned().map(FilterSpec::checked_unchanging).transpose().ok()?;
                let hidden = hide.iter().cloned().fold(Hidden::default(), Hidden::with);
                let principal = Principal::new(*role, user.clone(), Credential::Jwt(Arc::new(signed)));
                Some(Principal { expires_at: Some(*exp), ..principal.narrowed(only.as_ref(), hidden) })
            }
        }
    }
}

/// What of a maker goes into the names of its tokens.
fn maker_print(random: &[u8], maker: &Principal) -> [u8; JTI_MAKER_BYTES] {
    let who = match &maker.credential {
        // One JWT follows another, and is the same maker.
        Credential::Jwt(signed) => format!("jwt:{}:{}", Fingerprint::of(&*signed.issuer), signed.subject),
        other => other.to_string(),
    };
    let digest = Sha256::new().chain_update(random).chain_update(who).finalize();
    std::array::from_fn(|at| digest[at])
}

/// Whether the token of this name was made by this caller.
pub fn is_maker(maker: &Principal, jti: &str) -> bool {
    let Some(bytes) = jti_bytes(jti) else { return false };
    let (random, print) = bytes.split_at(JTI_RANDOM_BYTES);
    !matches!(maker.credential, Credential::Scoped(_)) && maker_print(random, maker) == print
}

/// Whether this could be the name of a scoped token.
pub fn is_jti(jti: &str) -> bool {
    jti_bytes(jti).is_some()
}

fn jti_bytes(jti: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(jti).ok()?;
    (bytes.len() == JTI_RANDOM_BYTES + JTI_MAKER_BYTES).then_some(bytes)
}

/// A key of the hub, ready to sign and to verify.
pub struct Signer {
    kid: Arc<str>,
    created_at: Timestamp,
    pair: Ed25519KeyPair,
    public: VerifyKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new one. Fails where the system has no randomness.
    pub fn generate(now: Timestamp) -> std::io::Result<SigningKey> {
        let (kid, seed) = (random::<8>()?, random::<32>()?);
        Ok(SigningKey { kid: to_hex(&kid), seed: to_hex(&seed), created_at: now })
    }
}

impl Signer {
    /// `None`: the record is damaged.
    pub fn new(key: &SigningKey) -> Option<Signer> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&from_hex::<32>(&key.seed)?).ok()?;
        let public = VerifyKey::ed25519(pair.public_key().as_ref()).ok()?;
        Some(Signer { kid: key.kid.as_str().into(), created_at: key.created_at, pair, public })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Makes a token of what `maker` may, less what is not asked for.
    pub fn mint(&self, maker: &Principal, new: NewScoped, now: Timestamp) -> Result<Minted, MintError> {
        let forbidden = |field, why: &str| Err(MintError::Forbidden { field, why: why.to_owned() });
        let (true, Some(mk)) = (maker.may(Right::Mint), Maker::of(maker)) else {
            return forbidden(None, "this caller makes no tokens");
        };
        let NewScoped { mut allow, filter, hide, ttl_ms, user_id, once } = new;
        allow.sort_unstable();
        allow.dedup();
        if allow.is_empty() {
            return Err(Invalid::value("allow", "must name at least one of read, cancel, retry and submit").into());
        }
        if let Some(more) = allow.iter().find(|allow| maker.rights.and(allow.rights()) != allow.rights()) {
            return forbidden(Some("allow"), &format!("{} is not for this caller", more.word()));
        }
        filter.clone().checked_unchanging().map_err(|invalid| invalid.within("filter"))?;
        if once && allow != [Allow::Submit] {
            return Err(Invalid::value("once", "is for tokens that allow submit alone").into());
        }
        check_user(user_id.as_deref())?;
        let own = user_id.is_some();
        let user_id = user_id.as_deref().map(Name::new);
        if maker.role == Role::User && own && user_id != maker.user_id {
            return forbidden(Some("user_id"), "a user makes tokens for themselves");
        }
        let ttl_ms = ttl_ms.unwrap_or(SCOPED_MS_DEFAULT);
        if ttl_ms > SCOPED_MS_MAX {
            return Err(Invalid::limit("ttl_ms", SCOPED_MS_MAX, "").into());
        }
        if ttl_ms == 0 {
            return Err(Invalid::value("ttl_ms", "must be at least 1").into());
        }
        let expires_at = maker.expires_at.into_iter().fold(now.plus_millis(ttl_ms), Timestamp::min);
        let random = random::<JTI_RANDOM_BYTES>().map_err(|_| MintError::Unavailable)?;
        let jti = URL_SAFE_NO_PAD.encode([&random[..], &maker_print(&random, maker)].concat());
        let seconds = |at: Timestamp| at.as_millis() as f64 / 1_000.0;
        let claims = ScopedClaims {
            iss: HUB.into(),
            aud: HUB.into(),
            jti: jti.clone(),
            iat: seconds(now),
            exp: seconds(expires_at),
            sub: user_id.or_else(|| maker.user_id.clone()),
            mk,
            allow,
            filter,
            hide,
            own,
            once,
        };
        let claims = serde_json::to_vec(&claims).expect("claims are JSON");
        let token = format!("{SCOPED_PREFIX}{}", super::jws::sign(&self.kid, &self.pair, &claims));
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Invalid::limit("filter", TOKEN_BYTES_MAX as u64, "bytes of a token that carries it").into());
        }
        Ok(Minted { token, jti, expires_at })
    }

    /// What a text says that this key has signed.
    pub fn verify(&self, jws: &Jws<'_>, now: Timestamp) -> Result<ScopedClaims, Unauthenticated> {
        if !jws.is_signed_by(&self.public) {
            return Err(Unauthenticated::Signature);
        }
        // The hub's own word; a record of another version may have more.
        let claims: ScopedClaims = serde_json::from_slice(&jws.payload)
            .map_err(|_| Unauthenticated::Claims("it was made by another version of the hub".into()))?;
        if claims.iss != HUB || claims.aud != HUB {
            return Err(Unauthenticated::Claims("it is for something else".into()));
        }
        if claims.expires_at() <= now { Err(Unauthenticated::Expired) } else { Ok(claims) }
    }

    /// Whether this is the key that a text names.
    pub fn is_named_by(&self, jws: &Jws<'_>) -> bool {
        jws.kid() == Some(self.kid())
    }
}

impl ScopedClaims {
    fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis((self.exp * 1_000.0).round() as i64)
    }

    /// Who comes with the token, as its maker is now.
    pub fn principal(self, signer: &Signer, maker: Arc<Principal>) -> Result<Principal, Unauthenticated> {
        let expires_at = maker.expires_at.into_iter().fold(self.expires_at(), Timestamp::min);
        let mut filter = self.filter.checked().map_err(|why| Unauthenticated::Claims(why.to_string().into()))?;
        if self.own {
            let user = self.sub.iter().cloned().collect();
            filter = filter.and(&Filter { user_id: Some(user), ..Filter::default() });
        }
        let sight = match &maker.sight {
            Sight::All if filter == Filter::default() => Sight::All,
            Sight::All => Sight::Of(Arc::new(filter)),
            Sight::Of(seen) => Sight::Of(Arc::new(seen.and(&filter))),
            Sight::Held => return Err(Unauthenticated::Claims("workers make no tokens".into())),
        };
        let rights = self.allow.iter().fold(Rights::default(), |rights, allow| rights.or(allow.rights()));
        Ok(Principal {
            role: maker.role,
            user_id: self.sub,
            rights: maker.rights.and(rights),
            sight,
            hidden: self.hide.into_iter().fold(maker.hidden.clone(), Hidden::with),
            works: maker.works.clone(),
            credential: Credential::Scoped(Arc::new(Scoped {
                jti: self.jti.into(),
                kid: signer.kid.clone(),
                issued_at: Timestamp::from_millis((self.iat * 1_000.0).round() as i64),
                once: self.once,
                maker,
            })),
            expires_at: Some(expires_at),
        })
    }
}
