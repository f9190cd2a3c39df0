//! API tokens: for programs, made by people, in force until they are taken back.

use std::io;
use std::sync::Arc;

use super::token::{Fingerprint, new_api_token};
use super::{ApiToken, Credential, Principal, Role, Works};
use crate::task::{Invalid, Name, Pattern, PatternSet, Timestamp, USER_ID_CHARS_MAX, chars};

/// The most patterns of task types, and of queues, of one token.
pub const WORKS_LEN_MAX: usize = 100;

/// What is said of an API token before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiToken {
    /// By it the token is listed, revoked, and found in the audit.
    pub name: String,
    pub role: Role,
    /// A `user` token has one. Others may.
    pub user_id: Option<String>,
    /// Of a worker: names, or beginnings of names with a trailing `*`.
    pub task_types: Option<Vec<String>>,
    /// Of a worker.
    pub queues: Option<Vec<String>>,
    pub expires_at: Option<Timestamp>,
}

/// Why there is no token.
#[derive(Debug)]
pub enum NewTokenError {
    Invalid(Invalid),
    /// The system has no randomness.
    Random(io::Error),
}

impl NewApiToken {
    /// The record to keep, and the text to show once.
    pub fn make(self, now: Timestamp) -> Result<(ApiToken, String), NewTokenError> {
        let invalid = |field: &'static str, why: String| NewTokenError::Invalid(Invalid::value(field, why));
        let name = Name::parse(&self.name).map_err(|why| invalid("name", why.to_string()))?;
        check_user(self.user_id.as_deref()).map_err(NewTokenError::Invalid)?;
        if self.role == Role::User && self.user_id.is_none() {
            return Err(invalid("user_id", "must be given for the role user: it sees that user's tasks".into()));
        }
        for (field, list) in [("task_types", &self.task_types), ("queues", &self.queues)] {
            let Some(list) = list else { continue };
            if self.role != Role::Worker {
                return Err(invalid(field, "is for the role worker only".into()));
            }
            if list.is_empty() {
                return Err(invalid(field, "must not be an empty list".into()));
            }
            if list.len() > WORKS_LEN_MAX {
                return Err(NewTokenError::Invalid(Invalid::limit(field, WORKS_LEN_MAX as u64, "patterns")));
            }
            patterns(list).map_err(|why| invalid(field, why))?;
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(invalid("expires_at", "must be in the future".into()));
        }
        let text = new_api_token().map_err(NewTokenError::Random)?;
        let token = ApiToken {
            name,
            digest: Fingerprint::of(&text).to_string(),
            role: self.role,
            user_id: self.user_id.as_deref().map(Name::new),
            task_types: self.task_types,
            queues: self.queues,
            created_at: now,
            expires_at: self.expires_at,
        };
        Ok((token, text))
    }
}

/// Whether this can be a user.
pub(super) fn check_user(user_id: Option<&str>) -> Result<(), Invalid> {
    if user_id == Some("") {
        return Err(Invalid::value("user_id", "must not be empty"));
    }
    chars("user_id", user_id, USER_ID_CHARS_MAX)
}

/// The patterns of a worker's types or queues.
pub(super) fn patterns(list: &[String]) -> Result<PatternSet, String> {
    let each = list.iter().map(|text| Pattern::parse(text).map_err(|why| format!("{why}, in {text:?}")));
    each.collect::<Result<_, _>>().map(PatternSet::new)
}

impl ApiToken {
    /// Who comes with it; or what is wrong with the record.
    pub fn principal(self: &Arc<ApiToken>) -> Result<Principal, String> {
        let works = |list: &Option<Vec<String>>| list.as_deref().map(patterns).transpose();
        let works = Works { task_types: works(&self.task_types)?, queues: works(&self.queues)? };
        let principal = Principal::new(self.role, self.user_id.clone(), Credential::ApiToken(self.clone()));
        Ok(Principal { works, expires_at: self.expires_at, ..principal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Right, Sight};

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    fn new(role: Role) -> NewApiToken {
        NewApiToken { name: "ci".into(), role, user_id: None, task_types: None, queues: None, expires_at: None }
    }

    #[test]
    fn a_token_is_kept_as_its_digest_and_becomes_a_principal() {
        let new = NewApiToken { user_id: Some("größe".into()), ..new(Role::User) };
        let (token, text) = new.make(now()).unwrap();
        assert_eq!(token.digest, Fingerprint::of(&text).to_string());
        assert!(!format!("{token:?}").contains(&text[4..]));
        let principal = Arc::new(token).principal().unwrap();
        assert_eq!((principal.role, principal.user_id), (Role::User, Some(Name::new("größe"))));
        assert!(matches!(&principal.sight, Sight::Of(filter) if filter.user_id.is_some()));
    }

    #[test]
    fn a_worker_takes_what_its_token_says() {
        let some = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let new = NewApiToken { task_types: some(&["ingest.*"]), ..new(Role::Worker) };
        let principal = Arc::new(new.make(now()).unwrap().0).principal().unwrap();
        let types = principal.works.task_types.as_ref().unwrap();
        assert!(types.matches("ingest.pdf") && !types.matches("report") && principal.works.queues.is_none());
        assert!(principal.may(Right::Work) && !principal.may(Right::Submit));
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_by_its_field() {
        let check = |new: NewApiToken, expected: &str| match new.make(now()) {
            Err(NewTokenError::Invalid(invalid)) => assert!(invalid.to_string().starts_with(expected), "{invalid}"),
            other => panic!("{other:?} instead of {expected}"),
        };
        let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        check(NewApiToken { name: "a b".into(), ..new(Role::Admin) }, "name must be of A-Z");
        check(NewApiToken { name: String::new(), ..new(Role::Admin) }, "name must not be empty");
        check(new(Role::User), "user_id must be given");
        check(NewApiToken { user_id: Some(String::new()), ..new(Role::User) }, "user_id must not be empty");
        check(NewApiToken { user_id: Some("x".repeat(129)), ..new(Role::Viewer) }, "user_id must be at most 128");
        check(NewApiToken { queues: list(&["a"]), ..new(Role::Operator) }, "queues is for the role worker");
        check(NewApiToken { queues: list(&[]), ..new(Role::Worker) }, "queues must not be an empty");
        check(NewApiToken { task_types: list(&["a", "b*c"]), ..new(Role::Worker) }, "task_types must be of A-Z");
        check(NewApiToken { task_types: list(&["a"; 101]), ..new(Role::Worker) }, "task_types must be at most 100");
        check(NewApiToken { expires_at: Some(now()), ..new(Role::Admin) }, "expires_at must be in the future");
    }
}
