//! Tokens that an application signs (JWT, RFC 7519), and who comes with one.
//!
//! A token is taken from an issuer that is known, for an audience that is meant, within its time, with a user and a role as
//! the issuer's rules say, less what its claims keep from it: tasks, parts of tasks, and what a worker takes. All of it is asked once the signature is right; nothing in a token says how it wants to be
//! checked. A role that is not known, or more than the issuer may give, is refused and not lowered: whoever set that up should hear of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use super::api_token::{check_user, patterns};
use super::{
    Alg, Credential, Fingerprint, Hidden, Jws, Principal, Role, Signed, Unauthenticated, WORKS_LEN_MAX, Works, hides,
};
use crate::task::{Filter, FilterSpec, Name, Timestamp};

/// How far the clocks of an issuer and of the hub may be apart.
pub const LEEWAY_MS: u64 = 30_000;
/// The longest subject.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// What is taken from one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    pub issuer: Arc<str>,
    /// One of these must be meant.
    pub audience: Vec<String>,
    /// Algorithms that are taken, of those that the keys are for. None: all of them.
    pub algs: Option<Vec<Alg>>,
    /// The most that this issuer may make of somebody.
    pub roles_max: Role,
    /// Where the user stands: a claim of that name, else a path with dots.
    pub user_claim: String,
    pub role_claim: String,
    /// What the values of that claim mean. Empty: they are the roles themselves.
    pub roles: BTreeMap<String, Role>,
    /// For who has no such claim.
    pub default_role: Option<Role>,
    /// Where it stands which tasks it is for: a filter, as that of a scoped token.
    pub filter_claim: String,
    /// What is hidden, as in a scoped token.
    pub hide_claim: String,
    /// What a worker takes: lists of patterns.
    pub task_types_claim: String,
    pub queues_claim: String,
}

impl JwtRules {
    /// Who comes with a token that this key has signed.
    pub fn principal(&self, jws: &Jws<'_>, key: Fingerprint, now: Timestamp) -> Result<Principal, Unauthenticated> {
        let claims = jws.claims()?;
        let text = |name: &'static str| match claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(refused(format!("{name} must be a text"))),
        };
        if text("iss")? != Some(&*self.issuer) {
            return Err(refused("iss is another one"));
        }
        if !self.is_meant(claims.get("aud")) {
            return Err(refused("aud does not name this hub"));
        }
        let expires = moment(&claims, "exp")?.ok_or_else(|| refused("it has no exp"))?.plus_millis(LEEWAY_MS);
        if expires <= now {
            return Err(Unauthenticated::Expired);
        }
        let latest = now.plus_millis(LEEWAY_MS);
        let issued_at = moment(&claims, "iat")?;
        if issued_at > Some(latest) || moment(&claims, "nbf")? > Some(latest) {
            return Err(Unauthenticated::NotYet);
        }
        let subject = text("sub")?.filter(|sub| (1..=SUBJECT_BYTES_MAX).contains(&sub.len()));
        let subject =
            subject.ok_or_else(|| refused(format!("sub must be there, with at most {SUBJECT_BYTES_MAX} bytes")))?;
        let role = self.role(&claims)?;
        let user = match lookup(&claims, &self.user_claim) {
            None if role == Role::User => return Err(refused(format!("a user needs a {}", self.user_claim))),
            None => None,
            Some(Value::String(user)) => {
                check_user(Some(user)).map_err(|why| refused(format!("{}: {}", self.user_claim, why.detail)))?;
                Some(Name::new(user))
            }
            Some(_) => return Err(refused(format!("{} must be a text", self.user_claim))),
        };
        let (filter, hidden, works) =
            (self.filter(&claims, role)?, self.hidden(&claims, role)?, self.works(&claims, role)?);
        let signed = Signed {
            issuer: self.issuer.clone(),
            subject: subject.into(),
            issued_at: issued_at.unwrap_or_default(),
            key,
            filter: filter.as_ref().map(|(spec, _)| spec.clone()),
        };
        let principal = Principal::new(role, user, Credential::Jwt(Arc::new(signed)));
        let principal = principal.narrowed(filter.as_ref().map(|(_, filter)| filter), hidden);
        Ok(Principal { expires_at: Some(expires), works, ..principal })
    }

    /// The tasks that it is for. A worker's are those that it holds.
    fn filter(
        &self,
        claims: &BTreeMap<String, Value>,
        role: Role,
    ) -> Result<Option<(Arc<FilterSpec>, Filter)>, Unauthenticated> {
        let Some(value) = lookup(claims, &self.filter_claim) else { return Ok(None) };
        let wrong = |why: String| refused(format!("{}: {why}", self.filter_claim));
        if role == Role::Worker {
            return Err(wrong("is not for workers, who see what they hold".to_owned()));
        }
        let spec = FilterSpec::deserialize(value).map_err(|why| wrong(why.to_string()))?;
        let filter = spec.clone().checked_unchanging().map_err(|why| wrong(why.to_string()))?;
        Ok(Some((Arc::new(spec), filter)))
    }

    fn hidden(&self, claims: &BTreeMap<String, Value>, role: Role) -> Result<Hidden, Unauthenticated> {
        let Some(value) = lookup(claims, &self.hide_claim) else { return Ok(Hidden::default()) };
        let wrong = |why: String| refused(format!("{}: {why}", self.hide_claim));
        if role == Role::Worker {
            return Err(wrong("is not for workers, who are handed whole tasks".to_owned()));
        }
        let hides = hides(value).map_err(|why| wrong(why.to_string()))?;
        Ok(hides.into_iter().fold(Hidden::default(), Hidden::with))
    }

    /// What a worker takes.
    fn works(&self, claims: &BTreeMap<String, Value>, role: Role) -> Result<Works, Unauthenticated> {
        let list = |name: &str| {
            let Some(value) = lookup(claims, name) else { return Ok(None) };
            if role != Role::Worker {
                return Err(refused(format!("{name} is for the role worker only")));
            }
            let list =
                Vec::<String>::deserialize(value).map_err(|_| refused(format!("{name} must be a list of texts")))?;
            if !(1..=WORKS_LEN_MAX).contains(&list.len()) {
                return Err(refused(format!("{name} must have 1 to {WORKS_LEN_MAX} patterns")));
            }
            patterns(&list).map(Some).map_err(|why| refused(format!("{name}: {why}")))
        };
        Ok(Works { task_types: list(&self.task_types_claim)?, queues: list(&self.queues_claim)? })
    }

    fn is_meant(&self, audience: Option<&Value>) -> bool {
        let is_own = |value: &Value| value.as_str().is_some_and(|text| self.audience.iter().any(|own| own == text));
        match audience {
            Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(is_own),
            Some(one) => is_own(one),
            None => false,
        }
    }

    fn role(&self, claims: &BTreeMap<String, Value>) -> Result<Role, Unauthenticated> {
        let role = match lookup(claims, &self.role_claim) {
            None => self.default_role.ok_or_else(|| refused(format!("it has no {}", self.role_claim)))?,
            Some(Value::String(word)) => self.named(word)?,
            // Of several, the one that may most; all have to be known.
            Some(Value::Array(words)) => {
                let named = words.iter().map(|word| match word.as_str() {
                    Some(word) => self.named(word),
                    None => Err(refused(format!("{} must be a text, or a list of texts", self.role_claim))),
                });
                let named = named.collect::<Result<Vec<_>, _>>()?;
                named.into_iter().max().ok_or_else(|| refused(format!("{} is empty", self.role_claim)))?
            }
            Some(_) => return Err(refused(format!("{} must be a text, or a list of texts", self.role_claim))),
        };
        if role > self.roles_max {
            return Err(refused(format!("the role {role} is more than its issuer may give ({})", self.roles_max)));
        }
        Ok(role)
    }

    fn named(&self, word: &str) -> Result<Role, Unauthenticated> {
        let role = if self.roles.is_empty() { word.parse().ok() } else { self.roles.get(word).copied() };
        role.ok_or_else(|| refused(format!("{} names a role that is not known", self.role_claim)))
    }
}

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Unauthenticated {
    Unauthenticated::Claims(why.into())
}

/// A claim of that name, else one within others, on a path with dots.
fn lookup<'a>(claims: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
    let found = claims.get(name).or_else(|| {
        let (first, path) = name.split_once('.')?;
        path.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
    });
    found.filter(|value| !value.is_null())
}

/// A NumericDate: seconds, perhaps with a fraction.
fn moment(claims: &BTreeMap<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Unauthenticated> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().ok_or_else(|| refused(format!("{name} must be a number of seconds")))?;
            // Saturates.
            Ok(Some(Timestamp::from_millis((seconds * 1_000.0).round() as i64)))
        }
    }
}
